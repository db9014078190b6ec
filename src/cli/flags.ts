import type { StorageChoice, TargetChoice } from "./context.ts";
import {
  argvFlag,
  choiceFlag,
  countFlag,
  durationFlag,
  listFlag,
  recordFlag,
  named,
  switchFlag,
  textFlag,
} from "./flag.ts";
import type { Flag } from "./flag.ts";
import type { Invocation } from "./verb.ts";

// What several verbs share. Names are those of the design: they do not change.

export const source = textFlag("source", {
  placeholder: "<url>",
  text: "where releases are: s3://bucket/prefix, gs://bucket/prefix or a folder",
});
export const database = textFlag("database", {
  placeholder: "<url>",
  text: "postgres://user@host:5432/name?sslmode=verify-full or mongodb://user@host:27017/name",
  explained: "$DATABASE_URL",
});
export const passwordFile = textFlag("password-file", {
  placeholder: "<file>",
  text: "file whose content is the database password, in place of one in the URL",
});
const databaseSecret = textFlag("database-secret", {
  placeholder: "<name>",
  text: "in place of --database: a secret that holds the URL, or what RDS keeps; arn:aws:secretsmanager:… or projects/…/secrets/…",
});
const passwordSecret = textFlag("password-secret", {
  placeholder: "<name>",
  text: "a secret whose content is the password, or what RDS keeps, in place of one in the URL",
});
const databaseIam = choiceFlag("database-iam", {
  text: "log in with a token of the platform's IAM in place of a password",
  choices: ["rds", "cloud-sql"],
});
export const directDatabase = textFlag("direct-database", {
  placeholder: "<url>",
  text: "the same database past its transaction pooler, for statements that run outside a transaction",
  explained: "--database",
});
export const schema = textFlag("schema", {
  placeholder: "<name>",
  text: "schema of lockkeeper's own tables, of MongoDB the first part of its collections' names",
  explained: "lockkeeper",
});
export const stream = named(
  textFlag("stream", {
    placeholder: "<name>",
    text: "name of the release stream",
    explained: "the database's name",
  }),
);
export const environment = named(
  textFlag("environment", {
    placeholder: "<name>",
    text: "a release must have been published for it",
    explained: "default",
  }),
);
export const trust = listFlag("trust", {
  placeholder: "<file>",
  text: "public key or trust file whose signatures count; can be repeated",
});
/** Typed each time: no variable and no configuration key can switch signatures off. */
const unsigned = switchFlag("unsigned", {
  text: "take plain migration files without a signature; refused for production and after a signed release",
  hasVariable: false,
});
export const target = textFlag("target", {
  placeholder: "<name>",
  text: "a target of the configuration file, in place of --source, --database, --stream, --environment and --trust",
});
export const config = textFlag("config", {
  placeholder: "<file>",
  text: "configuration file for --target, and for the databases of other services",
  explained: "lockkeeper.yaml",
});
export const format = textFlag("format", {
  placeholder: "<tool>",
  text: "which tool plain files are written for: golang-migrate, goose, dbmate, flyway or atlas",
  explained: "what they look like",
});
export const placeholders = recordFlag("placeholder", {
  placeholder: "<name=value>",
  text: "what Flyway's ${name} stands for in plain files; can be repeated",
});
export const allowLate = switchFlag("allow-late", {
  text: "append migrations whose version is lower than one already there, instead of refusing them",
});

export const release = textFlag("release", {
  placeholder: "<digest>",
  text: "exactly this release, sha256:…; any other is refused",
  explained: "the newest",
});
export const plan = textFlag("plan", {
  placeholder: "<digest>",
  text: "run exactly the plan that `lockkeeper plan` printed, or refuse",
});
export const wait = durationFlag("wait", {
  text: "how long to wait for another run's lease",
  fallback: "10m",
});
const lockTimeout = durationFlag("lock-timeout", {
  text: "how long a statement may wait for a table lock; 0 for ever",
  fallback: "5s",
});
const statementTimeout = durationFlag("statement-timeout", {
  text: "how long a statement may take; 0 for ever",
  fallback: "0",
});
export const deadline = durationFlag("deadline", {
  text: "how long the whole run may take; 0 for ever",
  fallback: "0",
});

const orphans = choiceFlag("orphans", {
  text: "when a statement of a runner that died is still under way on the server: wait for it, as long as --wait says (the default), or cancel it",
  choices: ["wait", "cancel"],
});
const dependencies = choiceFlag("dependencies", {
  text: "when a service that a migration depends on is not at its version yet: refuse the run (the default), or wait for it, as long as --wait says",
  choices: ["wait", "refuse"],
});
/** Typed each time: a variable would allow it for ever. */
export const allowBreaking = switchFlag("allow-breaking", {
  text: "also apply migrations that the registry of services marks as breaking",
  hasVariable: false,
});
export const onFailure = choiceFlag("on-failure", {
  text: "when a migration fails: keep what was applied before it, or go back to where the run began by the down files; then each needs one",
  choices: ["keep", "rollback"],
});
const backupCommand = argvFlag("backup-command", {
  text: "program that makes a backup before the first step, run without a shell; its failure stops the run",
});
const backupUrl = textFlag("backup-url", {
  placeholder: "<url>",
  text: "webhook that makes a backup before the first step, in place of --backup-command",
});
const backupHeaderFile = textFlag("backup-header-file", {
  placeholder: "<file>",
  text: "file with a header for --backup-url, such as Authorization: Bearer …",
});
const backupTimeout = durationFlag("backup-timeout", {
  text: "how long the backup may take; 0 for ever",
  fallback: "1h",
});

const s3Endpoint = textFlag("s3-endpoint", {
  placeholder: "<url>",
  text: "an S3-compatible server",
  explained: "$AWS_ENDPOINT_URL_S3, or AWS",
});
const s3PathStyle = switchFlag("s3-path-style", {
  text: "bucket in the path instead of the host name",
});
const s3Region = textFlag("s3-region", {
  placeholder: "<region>",
  text: "region of the bucket",
  explained: "$AWS_REGION",
});
const gcsEndpoint = textFlag("gcs-endpoint", {
  placeholder: "<url>",
  text: "a server that speaks the GCS JSON API",
  explained: "$STORAGE_EMULATOR_HOST, or Google",
});

export const output = choiceFlag("output", {
  text: "table for people, json for programs: one document on stdout, progress as JSON lines on stderr",
  choices: ["table", "json"],
  fallback: "table",
});
export const noColor = switchFlag("no-color", {
  text: "no colours, also without a terminal or with $NO_COLOR",
});
export const verbose = switchFlag("verbose", { text: "say more: every event, and the causes of an error" });
export const reason = textFlag("reason", {
  placeholder: "<text>",
  text: "why; kept in the history and the audit log",
});
/** Of what leaves no entry in the history. */
export const auditedReason = { ...reason, text: "why; kept in the audit log" };
export const last = countFlag("last", {
  placeholder: "<n>",
  text: "only the newest n",
  fallback: 50,
  least: 1,
});

/** On every verb. */
export const everywhere: readonly Flag<unknown>[] = [output, noColor, verbose];

/** Which S3 and GCS servers. */
export const storageFlags: readonly Flag<unknown>[] = [s3Endpoint, s3PathStyle, s3Region, gcsEndpoint];

/** Where releases are and why to believe them. */
export const releaseFlags: readonly Flag<unknown>[] = [
  source,
  stream,
  environment,
  trust,
  unsigned,
  release,
  target,
  config,
  format,
  placeholders,
  allowLate,
  ...storageFlags,
];

/** Which database, and how to log in. */
const accessFlags: readonly Flag<unknown>[] = [
  database,
  databaseSecret,
  passwordFile,
  passwordSecret,
  databaseIam,
];

/** Which database: of verbs that need no releases. */
export const databaseFlags: readonly Flag<unknown>[] = [
  ...accessFlags,
  schema,
  { ...target, text: "a target of the configuration file, in place of --database, --schema and --stream" },
  { ...config, text: "configuration file for --target" },
];

/** Which database, and which of its streams. */
export const streamFlags: readonly Flag<unknown>[] = [...databaseFlags, stream];

/** Which database and which releases. */
export const targetFlags: readonly Flag<unknown>[] = [
  source,
  ...accessFlags,
  directDatabase,
  schema,
  ...releaseFlags.slice(1),
];

/** Patience of a run. */
export const limitFlags: readonly Flag<unknown>[] = [wait, orphans, lockTimeout, statementTimeout, deadline];

/** What a run may do to other services, and needs of them. */
export const serviceFlags: readonly Flag<unknown>[] = [allowBreaking, dependencies];

/** What is made before the first step. */
export const backupFlags: readonly Flag<unknown>[] = [
  backupCommand,
  backupUrl,
  backupHeaderFile,
  backupTimeout,
];

/** What the flags of a verb say about the target; those that it does not have count as not given. */
export function chooseTarget({ get }: Pick<Invocation, "get">): TargetChoice {
  return {
    target: get(target),
    config: get(config),
    source: get(source),
    database: get(database),
    databaseSecret: get(databaseSecret),
    passwordFile: get(passwordFile),
    passwordSecret: get(passwordSecret),
    databaseIam: get(databaseIam),
    directDatabase: get(directDatabase),
    schema: get(schema),
    stream: get(stream),
    environment: get(environment),
    trust: get(trust),
    isUnsigned: get(unsigned),
    format: get(format),
    placeholders: get(placeholders),
    allowsLate: get(allowLate),
    limits: {
      waitMs: get(wait),
      lockTimeoutMs: get(lockTimeout),
      statementTimeoutMs: get(statementTimeout),
      deadlineMs: get(deadline),
    },
    orphans: get(orphans),
    dependencies: get(dependencies),
    backup: {
      command: get(backupCommand),
      url: get(backupUrl),
      headerFile: get(backupHeaderFile),
      timeoutMs: get(backupTimeout),
    },
    storage: chooseStorage({ get }),
  };
}

/** What the flags say about S3 and GCS servers. */
export function chooseStorage({ get }: Pick<Invocation, "get">): StorageChoice {
  return {
    s3Endpoint: get(s3Endpoint),
    s3Region: get(s3Region),
    s3PathStyle: get(s3PathStyle) || undefined,
    gcsEndpoint: get(gcsEndpoint),
  };
}
