import { type BigIntStats, type Dirent, lstatSync } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { RunnerError } from "../error.ts";
import { AtOnce, canRefuseLinks, readAtOnce, type WantedState } from "./at-once.ts";
import { collectFile, truncated } from "./body.ts";
import { changed } from "./conditional.ts";
import { type FolderOptions, folderPaths, orMissing } from "./folder-path.ts";
import { createFile, isOwnFile, replaceFile, versionOf } from "./folder-write.ts";
import { assertKey, compareKeys, type FolderLocation } from "./location.ts";
import { type Patience, withRetries } from "./retry.ts";
import { type Listed, sourceLimits, type StoredObject, type WritableSource } from "./source.ts";

/** File system calls under way at once in a listing. */
const lookups = 64;

/**
 * A folder on disk. A version is size, modification time in nanoseconds and inode.
 *
 * Symbolic links are followed only to what lies inside the folder itself, as Kubernetes mounts a ConfigMap's files;
 * whatever is read is a regular file, judged and read by one descriptor.
 */
export function openFolder(
  location: FolderLocation,
  options: FolderOptions = {},
  patience: Patience = sourceLimits,
): WritableSource {
  const { url, folder } = location;
  const { root, inside, openFile, makeFolder, unsafe } = folderPaths(location, options);
  let atOnce = new AtOnce();

  /** The object at `key`; bytes are read only when its version is `pinned`, or not the one `known`. */
  async function readFile(
    key: string,
    maxBytes: number,
    wanted: WantedState,
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined> {
    signal.throwIfAborted();
    assertKey(key, url);
    // A regular file that lies directly in the folder is inside; all else is looked into with care.
    if (canRefuseLinks && atOnce.isQuick() && !key.includes("/")) {
      if (atOnce.isLong()) await atOnce.turn();
      signal.throwIfAborted();
      const found = atOnce.call(() => readAtOnce(join(folder, key), maxBytes, wanted));
      if (found !== undefined) return found;
    }
    const { pinned, known } = wanted;
    const attempt = async () => {
      await using file = await openFile(key);
      const before = await file?.stat({ bigint: true });
      const version = before && versionOf(before);
      if (pinned !== undefined && version !== pinned) throw changed(url, key);
      if (file === undefined || before === undefined || version === undefined) return undefined;
      if (version === known) return "unchanged";
      const expected = { source: url, key, maxBytes, size: Number(before.size) };
      const bytes = await collectFile(file, expected);
      // Somebody wrote into it meanwhile. Whoever replaces files by renaming never gets here.
      if (versionOf(await file.stat({ bigint: true })) !== version) throw truncated(expected, undefined);
      return { bytes, version };
    };
    return withRetries(patience, signal, () => named(attempt(), key));
  }

  /** A file, or the name of a deeper folder. */
  async function row(
    rootPath: string,
    path: string,
    key: string,
    entry: Dirent,
  ): Promise<Listed | string | undefined> {
    const real = entry.isSymbolicLink() ? await inside(rootPath, path, key) : path;
    const found = real === undefined ? undefined : await look(real);
    // Gone since the folder was read.
    if (found === undefined) return undefined;
    if (found.isDirectory()) return `${key}/`;
    if (!found.isFile()) throw unsafe(key, "is not a regular file");
    return { key, size: Number(found.size), version: versionOf(found) };
  }

  async function look(path: string): Promise<BigIntStats | undefined> {
    if (!atOnce.isQuick()) return orMissing(lstat(path, { bigint: true }));
    return atOnce.call(() => lstatSync(path, { bigint: true, throwIfNoEntry: false }));
  }

  async function list(
    prefix: string,
    signal: AbortSignal,
    onFolder?: (name: string) => void,
  ): Promise<readonly Listed[]> {
    // A file system that was slow once need not be slow for ever.
    atOnce = new AtOnce();
    const deep = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    if (deep !== "") assertKey(deep.slice(0, -1), url);
    const rootPath = await root();
    const start = rootPath && (await inside(rootPath, join(rootPath, deep), deep));
    if (rootPath === undefined || start === undefined) return [];
    const entries = ((await orMissing(readdir(start, { withFileTypes: true }))) ?? []).filter(
      ({ name }) => name.startsWith(prefix.slice(deep.length)) && !isOwnFile(name),
    );
    if (entries.length > sourceLimits.listedObjects) {
      throw new RunnerError(
        "TOO_LARGE",
        `${url}: more than ${sourceLimits.listedObjects} files in one folder`,
        {
          hint: "give the migrations a folder of their own",
          fields: { source: url },
        },
      );
    }
    const rows: Listed[] = [];
    for (let at = 0; at < entries.length; at += lookups) {
      if (atOnce.isLong()) await atOnce.turn();
      signal.throwIfAborted();
      const found = await Promise.all(
        entries
          .slice(at, at + lookups)
          .map((entry) => row(rootPath, join(start, entry.name), deep + entry.name, entry)),
      );
      for (const one of found) {
        if (one === undefined) continue;
        if (typeof one === "string") onFolder?.(one);
        else rows.push(one);
      }
    }
    return rows.toSorted(compareKeys);
  }

  async function stateOf(key: string): Promise<string | undefined> {
    await using file = await openFile(key);
    return file && versionOf(await file.stat({ bigint: true }));
  }

  /** As the promise; what the file system refuses gets a code. */
  async function named<T>(promise: Promise<T>, key: string): Promise<T> {
    try {
      return await promise;
    } catch (error) {
      throw folderFailure(error, url, key);
    }
  }

  return {
    url,

    async list(prefix, signal, onFolder) {
      signal.throwIfAborted();
      return named(list(prefix, signal, onFolder), prefix);
    },

    async read(key, { maxBytes, version }, signal) {
      const object = await readFile(key, maxBytes, { pinned: version }, signal);
      return object === "unchanged" ? undefined : object;
    },

    async readIfChanged(key, version, { maxBytes }, signal) {
      return readFile(key, maxBytes, { known: version }, signal);
    },

    async write(key, bytes, condition, signal) {
      signal.throwIfAborted();
      const store = async () => {
        const path = join(await makeFolder(key), basename(key));
        if ("absent" in condition) return createFile(path, bytes);
        return replaceFile(path, bytes, async () => (await stateOf(key)) === condition.version, signal);
      };
      const found = await named(store(), key);
      return found === "conflict" ? "conflict" : { version: versionOf(found) };
    },
  };
}

function folderFailure(error: unknown, source: string, key: string): unknown {
  if (error instanceof RunnerError || !(error instanceof Error) || !("code" in error)) return error;
  const code = String(error.code);
  const fields = { source, key, errno: code };
  const where = key === "" ? source : `${source}: "${key}"`;
  switch (code) {
    // A link that became one since it was resolved, a circle of links; a socket.
    case "ELOOP":
    case "ENXIO":
      return new RunnerError("SOURCE_UNSAFE", `${where} is not a regular file`, { fields, cause: error });
    case "EACCES":
    case "EROFS":
      return new RunnerError(
        "SOURCE_DENIED",
        `${where} may not be ${code === "EROFS" ? "written" : "opened"} (${code})`,
        {
          hint: "check the folder's owner and rights",
          fields,
          cause: error,
        },
      );
    case "EPERM":
    case "ENOTSUP":
    case "EOPNOTSUPP":
    case "ENAMETOOLONG":
    case "EISDIR":
    case "ENOTDIR":
      return new RunnerError("SOURCE_REFUSED", `${where}: the file system refused (${code})`, {
        hint: "check the path; publishing needs a file system with hard links",
        fields,
        cause: error,
      });
    default:
      return new RunnerError("SOURCE_UNAVAILABLE", `${where}: the file system failed (${code})`, {
        fields,
        cause: error,
      });
  }
}
