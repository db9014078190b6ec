/**
 * What PostgreSQL's parser says of a syntax error, without the SQL that it quotes: `at or near "X"` stays where X is a name, a
 * keyword or a sign, and goes where it is a literal, which may be anything.
 */
export function syntaxMessage(message: string): string {
  return message.replace(/ at or near "(?!\w{1,63}"|[^\w'$]{1,3}").*/s, "");
}
