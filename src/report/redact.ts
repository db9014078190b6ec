/** What stands where a secret was. */
const hidden = "***";

/** A parameter of a URL or a word of a connection string whose value is never shown; a quoted value may hold spaces. */
const secretParameter =
  /(^|[?&\s;])((?:ssl|tlsCertificateKeyFile)?password|authMechanismProperties|passwd|pwd|passphrase|secret|(?:access_)?token|(?:x-(?:amz|goog)-)?signature)=('[^']*'?|[^\s&;"']*)/gi;

/**
 * A text for people in which every URL and connection string has lost its passwords and secret parameters;
 * scheme, user and host stay. In time proportional to its length.
 *
 * Works by pattern, not by parsing, because the URL that does not parse (a `#` or `@` in its password)
 * is the one most often printed.
 */
export function redactText(text: string): string {
  // a password may hold / ? # : and @ where somebody forgot to encode them, but nothing that ends a word
  const words = text.includes("://") ? text.replace(/[^\s"'`<>]+/g, hidePassword) : text;
  return !words.includes("=") ? words : words.replace(secretParameter, `$1$2=${hidden}`);
}

/** `scheme://user:password@host` of one word, the password up to the word's last `@`. */
function hidePassword(word: string): string {
  const scheme = word.indexOf("://");
  const at = word.lastIndexOf("@");
  if (scheme < 0 || at < scheme) return word;
  const colon = word.indexOf(":", scheme + 3);
  return colon < 0 || colon > at ? word : `${word.slice(0, colon)}:${hidden}${word.slice(at)}`;
}
