import { setTimeout as sleep } from "node:timers/promises";
import type { Variables } from "../cli/context.ts";
import { readSecretFile } from "../cli/secret-file.ts";
import type { DatabaseAccess, LogInToken } from "../driver/access.ts";
import { databaseNameOf, engineOf, withPassword } from "../driver/url.ts";
import { RunnerError } from "../error.ts";
import type { Engine } from "../migration/migration.ts";
import { redactText } from "../report/redact.ts";
import type { AccessSettings, PasswordSettings } from "./settings.ts";

/**
 * How a database is reached whose URL or password stands in a file or is kept by a cloud: read when it is first connected
 * to, remembered, and read again when the server does not take it any more.
 *
 * @param readUrl - of a URL that is no secret: what it is now
 * @throws RunnerError `USAGE` - the URL cannot be used; `CONFIG` - tokens are for PostgreSQL; what reading a secret throws, where nothing else says the engine
 */
export async function keptAccess(
  { url, password }: AccessSettings,
  readUrl: () => Promise<string>,
  engine: Engine | undefined,
  variables: Variables,
): Promise<DatabaseAccess> {
  const read = async (): Promise<string> =>
    withPasswordOf(url.kind === "secret" ? await readUrlSecret(url.name) : await readUrl(), password);
  const isSecret = url.kind === "secret" || password?.kind === "secret";
  const ask = remembered(read, isSecret ? waitsMs : []);
  // What is no secret is read at once, so that a file that is not there is found before anything begins.
  const known = url.kind === "secret" ? undefined : isSecret ? await readUrl() : await ask();
  const whose = known === undefined ? engine : engineOf(known);
  const access = {
    engine: whose ?? engineOf(await ask()),
    shown: url.kind === "secret" ? `the database of secret ${url.name}` : shownOf(known ?? ""),
    url: ask,
  };
  if (password?.kind !== "iam") {
    await assertUsable(known);
    return access;
  }
  if (access.engine !== "postgres")
    throw new RunnerError("CONFIG", "iam makes tokens for PostgreSQL, and the database is MongoDB", {
      hint: "name the file or the secret that holds its password",
    });
  const token = await tokenOf(password, variables);
  await assertUsable(known, token);
  return { ...access, token };
}

/** What is known now is held against now what the driver would find out later. */
async function assertUsable(known: string | undefined, token?: LogInToken): Promise<void> {
  if (known === undefined) return;
  if (engineOf(known) === "mongodb") await databaseNameOf(known);
  else (await import("../driver/postgres/address.ts")).parseAddress(known, token);
}

/** Milliseconds: whoever rotates a password changes it in the database first, and says so in the secret some seconds later. */
const waitsMs = [1_000, 2_000, 3_000];

/** Asks once for all callers, and again for those whose answer was refused. */
function remembered(
  read: () => Promise<string>,
  waits: readonly number[],
): (refused?: string) => Promise<string> {
  let asked: Promise<string> | undefined;
  let last: string | undefined;
  const readOther = async (refused: string): Promise<string> => {
    for (const ms of waits) {
      const url = await read();
      if (url !== refused) return url;
      await sleep(ms);
    }
    return read();
  };
  return async (refused) => {
    const isLast = refused !== undefined && refused === last;
    if (isLast) {
      last = undefined;
      asked = readOther(refused);
    }
    const asking = (asked ??= read());
    try {
      const url = await asking;
      if (asking === asked) last = url;
      return url;
    } catch (cause) {
      if (asking === asked) asked = undefined;
      throw cause;
    }
  };
}

async function readUrlSecret(name: string): Promise<string> {
  const [{ readSecret }, { urlOfSecret }] = await Promise.all([
    import("../host/secret.ts"),
    import("./secret-content.ts"),
  ]);
  return urlOfSecret(await readSecret(name), name);
}

async function withPasswordOf(url: string, password: PasswordSettings | undefined): Promise<string> {
  switch (password?.kind) {
    case "file":
      return withPassword(url, await readSecretFile(password.path, "the password file"));
    case "secret": {
      const [{ readSecret }, { credentialOf }] = await Promise.all([
        import("../host/secret.ts"),
        import("./secret-content.ts"),
      ]);
      const credential = credentialOf(await readSecret(password.name), password.name);
      return withPassword(url, credential.password, credential.user);
    }
    case "iam":
    case undefined:
      return url;
  }
}

async function tokenOf(
  { platform, endpoint }: Extract<PasswordSettings, { readonly kind: "iam" }>,
  variables: Variables,
): Promise<LogInToken> {
  switch (platform) {
    case "rds": {
      const { rdsTokens } = await import("../host/rds-token.ts");
      return {
        ...(endpoint === undefined ? {} : { endpoint }),
        mayStayLocal: false,
        hint: "let the user log in by IAM (GRANT rds_iam TO it), and allow this process's role rds-db:connect on the database's resource id and this user",
        make: rdsTokens(variables["AWS_REGION"] || variables["AWS_DEFAULT_REGION"] || undefined),
      };
    }
    case "cloud-sql": {
      const { googleTokens, scopes } = await import("../host/google-auth.ts");
      return {
        mayStayLocal: true,
        hint: "the user is the service account's address without .gserviceaccount.com, and has to be a user of the instance; its roles are cloudsql.client and cloudsql.instanceUser",
        make: googleTokens(scopes.cloudSql),
      };
    }
  }
}

/** For people, until the driver has read it. */
function shownOf(url: string): string {
  return redactText(url).replace(/\?.*$/s, "");
}
