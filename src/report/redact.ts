/** What stands where a secret was. */
const hidden = "***";

/** Words of connection strings and URLs whose value is never shown. */
const secretKey = "(?:password|passwd|pwd|passphrase|sslpassword|secret|token|access_token|x-amz-signature|x-goog-signature|signature)";

/**
 * A URL as it may be shown: user and host stay, passwords and secret parameters do not.
 *
 * Works by pattern, not by parsing, because the URL that does not parse (a `#` or `@` in its password)
 * is the one most often printed.
 */
export function redactUrl(url: string): string {
  return redactText(url);
}

/** A text for people in which every URL and connection string has lost its secrets. */
export function redactText(text: string): string {
  return (
    text
      // up to the last @ before white space or a quote: passwords hold / ? # : and @ when somebody forgot to encode them
      .replace(/([a-z][a-z0-9+.-]*:\/\/)([^\s"'`<>]*)@/gi, (_, scheme: string, userInfo: string) => {
        const colon = userInfo.indexOf(":");
        return colon < 0 ? `${scheme}${userInfo}@` : `${scheme}${userInfo.slice(0, colon)}:${hidden}@`;
      })
      .replace(new RegExp(`(^|[?&\\s;])(${secretKey})=('[^']*'|[^\\s&;"']*)`, "gi"), `$1$2=${hidden}`)
  );
}
