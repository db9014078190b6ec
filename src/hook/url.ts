import { RunnerError } from "../error.ts";

/**
 * The address of somebody's service, as an operator wrote it: https, or http on this machine.
 *
 * @param what - `the backup's URL`, for the error, which never repeats the text: a path may hold a secret
 * @throws RunnerError `CONFIG`
 */
export function parseHookUrl(text: string, what: string): URL {
  const url = URL.parse(text);
  const isLocal = url !== null && ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url === null || !(url.protocol === "https:" || (url.protocol === "http:" && isLocal))) {
    throw new RunnerError("CONFIG", `${what} has to begin with https://`, {
      hint: "http:// is taken for this machine only",
    });
  }
  if (url.username !== "" || url.password !== "") {
    throw new RunnerError("CONFIG", `${what} holds a user or a password`, {
      hint: "name a file that holds the secret instead",
    });
  }
  return url;
}
