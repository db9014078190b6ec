import { RunnerError } from "../../error.ts";
import type { RunnerErrorCode } from "../../error.ts";
import type { Analysis } from "../analysis.ts";
import type { Backfill } from "../backfill.ts";
import type { Statement, TxMode } from "../migration.ts";
import { quote } from "../format/folder-problem.ts";
import { factsOf } from "./command-kind.ts";
import { fieldOf, isTrue, itemsOf, numberOf, textOf } from "./field.ts";
import { readCommand, readCommands, type CommandBody } from "./read-commands.ts";
import { refusalOf } from "./refused-command.ts";
import type { Command, Value } from "./value.ts";

/**
 * Decides how a body of MongoDB commands may run: one by one, each with its checkpoint, unless its header says
 * `"tx": "one"`. With `"tx": "none"` no command of it is put into a transaction, also where that could be done.
 *
 * @param tx - what its tool's own directives ask for, where its header asks for nothing
 * @throws RunnerError `ENCODING`, `COMMAND_SYNTAX`, `HEADER`, `TOO_LARGE`
 * @throws RunnerError `STATEMENT_REFUSED` - a command that no migration may hold, or not in a transaction where the header asks for one
 * @throws RunnerError `BACKFILL` - the header makes it a backfill, and its command or its throttle cannot be that
 */
export function analyzeCommands(bytes: Uint8Array, path: string, tx?: TxMode): Analysis {
  const body = readCommands(bytes, path);
  const { header, commands } = body;
  for (const [index, command] of commands.entries()) {
    const refusal = refusalOf(command);
    if (refusal !== undefined)
      throw commandError("STATEMENT_REFUSED", path, index, command, refusal.what, refusal.hint);
  }
  const common = { alone: false, locks: [], isEmpty: commands.length === 0 };
  if (header.backfill !== undefined) {
    const statements = [toStatement(backfillCommand(body, header.backfill, path), "backfill")];
    return { ...common, tx: "none", statements };
  }
  const wanted = header.tx ?? tx;
  if (wanted === "one") {
    assertTransactional(commands, path);
    return { ...common, tx: "one" };
  }
  return {
    ...common,
    tx: "none",
    statements: commands.map((command) => toStatement(command, kindOf(command, wanted))),
  };
}

function toStatement({ offset, length }: Command, kind: Statement["kind"]): Statement {
  return { offset, length, kind };
}

function kindOf(command: Command, wanted: TxMode | undefined): Statement["kind"] {
  const { kind, isRepeatable } = factsOf(command);
  if (kind !== "transactional" || wanted !== "none") return kind;
  return isRepeatable ? "repeatable" : "once";
}

function assertTransactional(commands: readonly Command[], path: string): void {
  for (const [index, command] of commands.entries()) {
    if (factsOf(command).kind !== "transactional")
      throw commandError(
        "STATEMENT_REFUSED",
        path,
        index,
        command,
        `${quote(command.name)} cannot run in a transaction, which "tx": "one" asks for`,
        'remove "tx": "one", or give the command a migration of its own',
      );
  }
}

/** The one command of a backfill, after a look at whether each range of it changes what its range holds, and no more. */
function backfillCommand({ commands }: CommandBody, backfill: Backfill, path: string): Command {
  const [command, other] = commands;
  if (command === undefined)
    throw new RunnerError("BACKFILL", `${path}: a backfill without a command`, {
      hint: `write one "update" or "delete" of "${backfill.table}" after the header`,
      fields: { migration: path },
    });
  if (other !== undefined)
    throw commandError(
      "BACKFILL",
      path,
      1,
      other,
      "a backfill of several commands",
      "give each a migration of its own",
    );
  const flaw = flawOf(command, backfill);
  if (flaw !== undefined) throw commandError("BACKFILL", path, 0, command, flaw.what, flaw.hint);
  assertThrottleIsReading(backfill, path, command);
  return command;
}

interface Flaw {
  readonly what: string;
  readonly hint: string;
}

function flawOf({ name, document }: Command, { table }: Backfill): Flaw | undefined {
  if (name !== "update" && name !== "delete")
    return {
      what: `a backfill by ${quote(name)}`,
      hint: 'write "update" or "delete": their "q" gets the range of each step',
    };
  if (textOf(document.entries[0]?.[1]) !== table)
    return {
      what: `the command is not about "${table}"`,
      hint: `write {"${name}": "${table}", …}, or correct "table"`,
    };
  const writes = itemsOf(fieldOf(document, name === "update" ? "updates" : "deletes"));
  if (writes.length === 0) return { what: `the command holds no "${name}s"`, hint: "write at least one" };
  return writes.map(name === "update" ? updateFlaw : deleteFlaw).find((flaw) => flaw !== undefined);
}

function updateFlaw(update: Value): Flaw | undefined {
  if (!isTrue(fieldOf(update, "multi")))
    return {
      what: "an update of one document only",
      hint: 'write "multi": true: it changes all of each range',
    };
  if (isTrue(fieldOf(update, "upsert")))
    return {
      what: "an upsert, which would insert in each range that holds nothing",
      hint: 'remove "upsert"',
    };
  return queryFlaw(update);
}

function deleteFlaw(deletion: Value): Flaw | undefined {
  if (numberOf(fieldOf(deletion, "limit")) !== 0)
    return {
      what: "a deletion of one document only",
      hint: 'write "limit": 0: it deletes all of each range',
    };
  return queryFlaw(deletion);
}

function queryFlaw(write: Value): Flaw | undefined {
  if (fieldOf(write, "q")?.kind !== "document")
    return { what: 'a write without its query "q"', hint: 'write "q": {} for all documents' };
  // It would hold for the range's bounds too, which follow the index on _id and its order.
  if (fieldOf(write, "collation") !== undefined)
    return {
      what: 'a "collation", under which _id has another order',
      hint: 'remove it, or do without "backfill"',
    };
  return undefined;
}

function assertThrottleIsReading({ throttle }: Backfill, path: string, command: Command): void {
  if (throttle === undefined) return;
  const asked = readCommand(throttle, path);
  if (factsOf(asked).isReading && refusalOf(asked) === undefined) return;
  throw commandError(
    "BACKFILL",
    path,
    0,
    command,
    `the throttle ${quote(asked.name)} does more than look`,
    'write a command such as "find" or "aggregate": while its first document has {busy: true}, the backfill waits',
  );
}

function commandError(
  code: RunnerErrorCode,
  path: string,
  index: number,
  { line }: Command,
  what: string,
  hint: string,
): RunnerError {
  return new RunnerError(code, `${path}:${line}: ${what}`, {
    hint,
    fields: { migration: path, line, statement: index + 1 },
  });
}
