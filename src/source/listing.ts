import { RunnerError } from "../error.ts";
import { compareKeys } from "./location.ts";
import { type Listed, sourceLimits } from "./source.ts";

/** One page as a store sends it: whole object names, not yet without the source's prefix. */
export interface Page {
  readonly rows: readonly (Omit<Listed, "key"> & { readonly name: string })[];
  /** whole names of deeper folders, each with its delimiter */
  readonly folders: readonly string[];
  /** cursor of the next page; `undefined` on the last, empty where the store said there is more but not where */
  readonly next: string | undefined;
}

/**
 * Every page of a listing, as rows in key order.
 *
 * The loop proves its progress: a cursor that is missing or comes twice would end it early, or never.
 *
 * @throws RunnerError `SOURCE_UNAVAILABLE` — the store's pages do not add up
 * @throws RunnerError `TOO_LARGE` — above `sourceLimits.listedObjects`
 */
export async function listPages(
  { url, prefix }: { readonly url: string; readonly prefix: string },
  fetchPage: (cursor: string | undefined) => Promise<Page>,
  onFolder?: (name: string) => void,
): Promise<readonly Listed[]> {
  const rows: Listed[] = [];
  const cursors = new Set<string>();
  let cursor: string | undefined;
  do {
    const page = await fetchPage(cursor);
    for (const { name, size, version } of page.rows) {
      if (!name.startsWith(prefix)) throw incomplete(url, "an object of another prefix");
      // Consoles make a "folder" by an object whose name ends with the delimiter.
      if (!name.endsWith("/")) rows.push({ key: name.slice(prefix.length), size, version });
    }
    for (const name of page.folders) {
      if (!name.startsWith(prefix)) throw incomplete(url, "a folder of another prefix");
      onFolder?.(name.slice(prefix.length));
    }
    if (rows.length > sourceLimits.listedObjects) {
      throw new RunnerError(
        "TOO_LARGE",
        `${url}: more than ${sourceLimits.listedObjects} objects in one listing`,
        {
          hint: "give the migrations a prefix of their own",
          fields: { source: url },
        },
      );
    }
    cursor = page.next;
    if (cursor === "") throw incomplete(url, "a page that is not the last, without a cursor");
    if (cursor !== undefined && cursors.has(cursor)) throw incomplete(url, "the same cursor twice");
    if (cursor !== undefined) cursors.add(cursor);
  } while (cursor !== undefined);
  return rows.toSorted(compareKeys);
}

/** The error of a page that cannot be trusted. */
export function incomplete(url: string, what: string): RunnerError {
  return new RunnerError("SOURCE_UNAVAILABLE", `${url}: the listing is incomplete, the store sent ${what}`, {
    hint: "a partial list is never used: try again, or report it to the store's makers",
    fields: { source: url },
  });
}
