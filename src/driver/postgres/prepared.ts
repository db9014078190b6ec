import type { Connection, StatementResult } from "./connection.ts";
import { serverError } from "./failure.ts";
import { isThroughPooler } from "./pooler.ts";
import { sqlstate } from "./sqlstate.ts";

/** A statement that a server is asked for again and again, so that it need not parse and plan it each time. */
export interface PreparedStatement<Parameter extends string = string> {
  /** under which it is prepared on a connection */
  readonly name: string;
  /** of its parameters */
  readonly types: Readonly<Record<Parameter, string>>;
  /** It, with an expression in place of each parameter. */
  text(values: Readonly<Record<Parameter, string>>): string;
}

/** Writes a statement with these literals into a message: by its name, or whole. */
export type Write = <Parameter extends string>(
  statement: PreparedStatement<Parameter>,
  values: Readonly<Record<Parameter, string>>,
) => string;

/** Messages that a connection is sent whole before it is worth two exchanges to prepare their statements: whoever has a few runs ends before. */
export const enough = 32;

/**
 * Sends one message, whose statements are prepared on connections that have been sent such messages before, and that
 * no pooler is behind, which may give each transaction another backend.
 *
 * @param message - with its statements as `write` writes them; all of it takes effect or nothing, since it may be sent twice
 */
export async function sendPrepared(
  connection: Connection,
  statements: readonly PreparedStatement[],
  message: (write: Write) => string,
  signal: AbortSignal,
): Promise<readonly StatementResult[]> {
  const { known } = connection;
  const { prepared } = known;
  known.messages += 1;
  if (known.messages <= enough) return connection.send(message(whole), signal);
  known.isPooled ??= await isThroughPooler(connection);
  if (known.isPooled) return connection.send(message(whole), signal);
  try {
    const missing = statements.filter(({ name }) => !prepared.has(name));
    if (missing.length > 0) {
      // Migrations may have run on it since, and may have left what they like, or what we had.
      const first = prepared.size === 0 ? ["DEALLOCATE ALL"] : [];
      await connection.send([...first, ...missing.map(prepare)].join("; "), signal);
      for (const { name } of missing) prepared.add(name);
    }
    return await connection.send(message(byName), signal);
  } catch (cause) {
    if (!isOutdated.has(serverError(cause)?.sqlstate ?? "")) throw cause;
    await connection.send("ROLLBACK; DEALLOCATE ALL", signal);
    prepared.clear();
    return connection.send(message(whole), signal);
  }
}

/** What is prepared is not what we believe: a migration has put away all or used our name, or a table has new columns. */
const isOutdated: ReadonlySet<string> = new Set([
  sqlstate.noSuchStatement,
  sqlstate.duplicateStatement,
  sqlstate.changedResult,
]);

/** What has the server parse and plan a statement, once for the session. */
export function prepare(statement: PreparedStatement): string {
  const { name, types } = statement;
  const parameters = Object.keys(types).map((parameter, index): [string, string] => [
    parameter,
    `$${index + 1}`,
  ]);
  return `PREPARE ${name}${inBrackets(Object.values(types))} AS ${statement.text(Object.fromEntries(parameters))}`;
}

/** Writes statements as they are, for any session. */
export const whole: Write = (statement, values) => statement.text(values);

/** Writes statements by their names, for a session in which {@link prepare} was sent. */
export const byName: Write = ({ name, types }, values) => {
  const parameters = Object.keys(types) as (keyof typeof types)[];
  return `EXECUTE ${name}${inBrackets(parameters.map((parameter) => values[parameter]))}`;
};

/** What has no parameters has no brackets either. */
function inBrackets(parts: readonly string[]): string {
  return parts.length === 0 ? "" : `(${parts.join(", ")})`;
}
