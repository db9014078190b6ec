import type { Variables } from "../cli/context.ts";
import { readSecretFile } from "../cli/secret-file.ts";
import { RunnerError } from "../error.ts";
import type { Backup } from "../hook/backup.ts";
import type { Header } from "../hook/webhook.ts";
import type { BackupSettings } from "./settings.ts";

/** The command gets this process's own environment: what it may know of the database is its user's to say. */
export async function openBackup(settings: BackupSettings, variables: Variables): Promise<Backup> {
  const { timeoutMs } = settings;
  if (settings.kind === "command") {
    const { commandBackup } = await import("../hook/command.ts");
    return commandBackup(settings.argv, { timeoutMs, variables });
  }
  const { parseHeader, webhookBackup } = await import("../hook/webhook.ts");
  const { url, headerFile } = settings;
  if (headerFile === undefined) return webhookBackup(url, { timeoutMs });
  const header = async (): Promise<Header> => {
    const parsed = parseHeader(await readSecretFile(headerFile, "the backup's header file"));
    if (parsed !== undefined) return parsed;
    throw new RunnerError("CONFIG", `the backup's header file "${headerFile}" does not hold one header`, {
      hint: "write one line, such as Authorization: Bearer …",
    });
  };
  // Now, so that a wrong file is found when the program starts and not in the middle of the night.
  await header();
  return webhookBackup(url, { timeoutMs, header });
}
