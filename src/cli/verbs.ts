import type { Verb } from "./verb.ts";

/** A verb in the list; its file is loaded when it is called, so that starting costs one verb and not all of them. */
interface ListedVerb {
  readonly summary: string;
  load(): Promise<Verb>;
}

/** Every verb in the order of the main help: write, release, change, look, mend, serve. */
const listed: Readonly<Record<string, Readonly<Record<string, ListedVerb>>>> = {
  "Write and release": {
    create: {
      summary: "make the files of a new migration",
      load: async () => (await import("./command/create.ts")).create,
    },
    keygen: {
      summary: "make a key pair to sign releases with",
      load: async () => (await import("./command/keygen.ts")).keygen,
    },
    publish: {
      summary: "sign a folder as a release and put it into a bucket",
      load: async () => (await import("./command/publish.ts")).publish,
    },
    sign: {
      summary: "add a second signature to a release that waits for it",
      load: async () => (await import("./command/sign.ts")).sign,
    },
    "release show": {
      summary: "what a release holds",
      load: async () => (await import("./command/release-show.ts")).releaseShow,
    },
    "release renew": {
      summary: "give the newest release a new expiry, from a schedule",
      load: async () => (await import("./command/release-renew.ts")).releaseRenew,
    },
    "release timestamp": {
      summary: "vouch that the newest release is the newest, from a schedule",
      load: async () => (await import("./command/release-timestamp.ts")).releaseTimestamp,
    },
    verify: {
      summary: "check a release's signatures and every one of its bytes",
      load: async () => (await import("./command/verify.ts")).verify,
    },
  },
  "Keep a root of trust": {
    "root new": {
      summary: "write the first root, which runners pin",
      load: async () => (await import("./command/root-new.ts")).rootNew,
    },
    "root next": {
      summary: "write the root after it: other keys, a new expiry",
      load: async () => (await import("./command/root-next.ts")).rootNext,
    },
    "root sign": {
      summary: "sign a root",
      load: async () => (await import("./command/root-sign.ts")).rootSign,
    },
    "root publish": {
      summary: "prove the next root and put it into a bucket",
      load: async () => (await import("./command/root-publish.ts")).rootPublish,
    },
    "root show": {
      summary: "whom a root trusts with what, and who has signed it",
      load: async () => (await import("./command/root-show.ts")).rootShow,
    },
  },
  "Change a database": {
    up: { summary: "apply what is pending", load: async () => (await import("./command/up.ts")).up },
    init: {
      summary: "the same for init containers: waits for the database, or for the replica that does it",
      load: async () => (await import("./command/init.ts")).init,
    },
    converge: {
      summary: "the same for schedules, and whatever else starts by itself",
      load: async () => (await import("./command/converge.ts")).converge,
    },
    "golang-migrate-entrypoint": {
      summary:
        "the same in place of a container script around golang-migrate: its variables, its files, its table",
      load: async () => (await import("./command/golang-migrate-entrypoint.ts")).golangMigrateEntrypoint,
    },
    down: {
      summary: "take back the last migration, or the last N",
      load: async () => (await import("./command/down.ts")).down,
    },
    goto: {
      summary: "go up or down to a version",
      load: async () => (await import("./command/goto.ts")).goto,
    },
    redo: {
      summary: "take back the last migration and apply it again",
      load: async () => (await import("./command/redo.ts")).redo,
    },
  },
  "Look at a database": {
    plan: {
      summary: "what up, down or goto would do, with a digest to approve",
      load: async () => (await import("./command/plan.ts")).plan,
    },
    status: {
      summary: "where the database is and what is pending",
      load: async () => (await import("./command/status.ts")).status,
    },
    wait: {
      summary: "wait until the database has what an application needs",
      load: async () => (await import("./command/wait.ts")).wait,
    },
    history: {
      summary: "what was done, when, by whom",
      load: async () => (await import("./command/history.ts")).history,
    },
    version: {
      summary: "the version the database is at",
      load: async () => (await import("./command/version.ts")).version,
    },
    "audit show": {
      summary: "what was decided and done, by whom",
      load: async () => (await import("./command/audit-show.ts")).auditShow,
    },
    "audit verify": {
      summary: "whether the audit log is as it was written",
      load: async () => (await import("./command/audit-verify.ts")).auditVerify,
    },
  },
  "Mend a database": {
    adopt: {
      summary: "take over from golang-migrate, goose, dbmate, Flyway, Atlas and others",
      load: async () => (await import("./command/adopt.ts")).adopt,
    },
    baseline: {
      summary: "declare that everything up to a version is already there",
      load: async () => (await import("./command/baseline.ts")).baseline,
    },
    repair: {
      summary: "decide about a migration that needs attention",
      load: async () => (await import("./command/repair.ts")).repair,
    },
    unlock: {
      summary: "take the lease from a run that died",
      load: async () => (await import("./command/unlock.ts")).unlock,
    },
    pause: {
      summary: "let no run begin, whoever asks for it",
      load: async () => (await import("./command/pause.ts")).pause,
    },
    resume: {
      summary: "end a pause",
      load: async () => (await import("./command/resume.ts")).resume,
    },
    "trust reset": {
      summary: "make a database take a trust that was replaced",
      load: async () => (await import("./command/trust-reset.ts")).trustReset,
    },
  },
  "Over HTTP": {
    serve: { summary: "serve the HTTP API", load: async () => (await import("./command/serve.ts")).serve },
    work: {
      summary: "execute what a server has accepted: in a job of Cloud Run, Kubernetes or ECS",
      load: async () => (await import("./command/work.ts")).work,
    },
    "policy check": {
      summary: "read a policy as the server does, and explain a decision",
      load: async () => (await import("./command/policy-check.ts")).policyCheck,
    },
    trigger: {
      summary: "ask a lockkeeper server for a run and wait for it",
      load: async () => (await import("./command/trigger.ts")).trigger,
    },
  },
  Other: {
    completion: {
      summary: "print a completion script for bash, zsh or fish",
      load: async () => (await import("./command/completion.ts")).completion,
    },
  },
};

const byName = new Map(Object.values(listed).flatMap((group) => Object.entries(group)));

/** All verbs, in the order of the main help. */
export const verbNames: readonly string[] = [...byName.keys()];

/** The verb that a command line begins with; undefined where it begins with none. */
export async function findVerb(words: readonly string[]): Promise<Verb | undefined> {
  const [first = "", second = ""] = words;
  const found = byName.get(first) ?? byName.get(`${first} ${second}`);
  return found?.load();
}

/** All verbs, loaded. */
export async function loadVerbs(): Promise<readonly Verb[]> {
  return Promise.all([...byName.values()].map((verb) => verb.load()));
}

/** The text of `lockkeeper` alone. */
export function mainHelp(): string {
  const width = Math.max(...verbNames.map((name) => name.length));
  const groups = Object.entries(listed).map(([title, group]) => {
    const lines = Object.entries(group).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
    return `${title}:\n${lines.join("\n")}`;
  });
  return `lockkeeper brings a database to the version that a signed release in a bucket, or a folder of migrations, describes.

Usage: lockkeeper <verb> [words] [flags]

${groups.join("\n\n")}

Try it on a laptop:
  lockkeeper create add_users
  lockkeeper up --source ./migrations --unsigned --database postgres://postgres@localhost:5432/app

"lockkeeper <verb> --help" teaches a verb: its flags with their defaults, examples, exit codes.
"lockkeeper --version" prints the version of this program.
`;
}
