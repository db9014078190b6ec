import { syntaxMessage } from "../../migration/syntax-message.ts";

/**
 * What a server says of a failure, without what it quotes of rows and statements. Names of tables, columns and constraints
 * stay, and so does the text of a RAISE, which its author chose to show.
 */
export function withoutValues(message: string, sqlstate: string): string {
  if (quotesValues(sqlstate)) return message.replaceAll(/"(?:[^"]|"")*"?/g, '"…"');
  if (sqlstate === syntaxError) return syntaxMessage(message);
  return message;
}

const syntaxError = "42601";

/** Data exceptions (class 22) say the value; those about parameters say their names. */
function quotesValues(sqlstate: string): boolean {
  return sqlstate.startsWith("22") && sqlstate !== "22023";
}
