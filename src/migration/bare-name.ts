/** A file's name without direction and extension, as tools name a migration by it: `1700_users` of `1700_users.up.sql`. */
export function bareName(path: string): string {
  return path.replace(/(\.(up|down))?\.[A-Za-z]+$/, "");
}
