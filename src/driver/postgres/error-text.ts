/**
 * What a server says of a failure, without what it quotes of rows and statements. Names of tables, columns and constraints
 * stay, and so does the text of a RAISE, which its author chose to show.
 */
export function withoutValues(message: string, sqlstate: string): string {
  if (quotesValues(sqlstate)) return message.replaceAll(/"(?:[^"]|"")*"?/g, '"…"');
  // `at or near "X"` quotes the text from there on: a name or a keyword helps, a literal may be anything
  if (sqlstate === syntaxError) return message.replace(/ at or near "(?!\w{1,63}"|[^\w'$]{1,3}").*/s, "");
  return message;
}

const syntaxError = "42601";

/** Data exceptions (class 22) say the value; those about parameters say their names. */
function quotesValues(sqlstate: string): boolean {
  return sqlstate.startsWith("22") && sqlstate !== "22023";
}
