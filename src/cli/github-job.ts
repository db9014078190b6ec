import { randomUUID } from "node:crypto";
import { appendFile } from "node:fs/promises";
import type { RunnerError } from "../error.ts";
import { redactText } from "../report/redact.ts";
import type { Variables } from "./context.ts";
import type { Output } from "./output.ts";

/**
 * The step of a job on GitHub that this program runs in, spoken to by commands in the log and by files.
 * https://docs.github.com/actions/reference/workflow-commands-for-github-actions
 */
export interface GithubJob {
  /** Folds what is said until `end`; nothing of it is taken for a command. With `--output json` there is nothing to fold. */
  begin(title: string): void;
  end(): void;
  /** An error as an annotation; of a migration at its file, where the folder is known. */
  annotate(error: RunnerError, folder: string | undefined): void;
  /** Adds Markdown to the job's page. */
  summarize(markdown: string): Promise<void>;
  /** What later steps read as `steps.<id>.outputs.<name>`. */
  setOutputs(values: Readonly<Record<string, string>>): Promise<void>;
}

/** The job we run in; undefined anywhere but on GitHub. */
export function githubJob(variables: Variables, output: Output): GithubJob | undefined {
  if (variables["GITHUB_ACTIONS"] !== "true") return undefined;
  // What a database or a server says is somebody else's text, and a line of it could be a command. No line of JSON can.
  const resume = output.isJson ? undefined : randomUUID();
  const write = (line: string): void => output.stderr.write(`${line}\n`);
  const append = async (variable: string, text: string): Promise<void> => {
    const file = variables[variable];
    if (file === undefined || file === "") return;
    try {
      await appendFile(file, text);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : "unknown reason";
      output.note(`warning: ${variable} cannot be written (${code})`);
    }
  };
  return {
    begin(title) {
      if (resume === undefined) return;
      write(command("group", {}, title));
      write(`::stop-commands::${resume}`);
    },
    end() {
      if (resume === undefined) return;
      write(`::${resume}::`);
      write("::endgroup::");
    },
    annotate(error, folder) {
      write(command("error", placeOf(error, folder), `${redactText(error.message)} (${error.code})`));
    },
    summarize: (markdown) => append("GITHUB_STEP_SUMMARY", markdown),
    setOutputs: (values) => append("GITHUB_OUTPUT", Object.entries(values).map(assignment).join("")),
  };
}

/** `::error file=db/1_users.up.sql,line=3::message` */
function command(name: string, properties: Readonly<Record<string, string>>, message: string): string {
  const list = Object.entries(properties).map(([key, value]) => `${key}=${escapeProperty(value)}`);
  return `::${name}${list.length === 0 ? "" : ` ${list.join(",")}`}::${escapeData(message)}`;
}

function placeOf({ fields }: RunnerError, folder: string | undefined): Readonly<Record<string, string>> {
  const { migration, line, column } = fields;
  const title = "lockkeeper";
  if (typeof migration !== "string") return { title };
  return {
    title,
    file: folder === undefined ? migration : `${folder.replace(/\/+$/, "")}/${migration}`,
    ...(typeof line === "number" ? { line: String(line) } : {}),
    ...(typeof column === "number" ? { col: String(column) } : {}),
  };
}

/** With an end of its own that no value can contain by accident or by intent. */
function assignment([name, value]: readonly [string, string]): string {
  const end = `end-${randomUUID()}`;
  return `${name}<<${end}\n${value}\n${end}\n`;
}

function escapeData(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function escapeProperty(text: string): string {
  return escapeData(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}
