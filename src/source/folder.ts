import { constants, type Dirent } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, join, sep } from "node:path";
import { RunnerError } from "../error.ts";
import { collectFile, truncated } from "./body.ts";
import { changed } from "./conditional.ts";
import { createFile, hasCode, isOwnFile, replaceFile } from "./folder-write.ts";
import { assertKey, compareKeys, type FolderLocation } from "./location.ts";
import { type Patience, withRetries } from "./retry.ts";
import { type Listed, sourceLimits, type StoredObject, type WritableSource } from "./source.ts";

/** How a folder is taken. */
export interface FolderOptions {
  /** a folder that does not exist reads as an empty one and the first write makes it; else it is `SOURCE_NOT_FOUND` */
  readonly create?: boolean;
}

// NONBLOCK: opening a FIFO must not wait for its writer. Windows has neither flag, nor what they guard against.
const openFlags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

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
  const { folder, url } = location;

  /** The folder without symbolic links; `undefined` where it is missing and may be. */
  async function root(): Promise<string | undefined> {
    const real = await orMissing(realpath(folder));
    if (real === undefined && options.create === true) return undefined;
    if (real !== undefined && (await stat(real)).isDirectory()) return real;
    throw new RunnerError("SOURCE_NOT_FOUND", `${url}: there is no such folder`, {
      hint: "check the path",
      fields: { source: url },
    });
  }

  /** `path` without symbolic links, when it lies inside the folder; `undefined` when nothing is there. */
  async function inside(rootPath: string, path: string, key: string): Promise<string | undefined> {
    const real = await orMissing(realpath(path));
    if (real === rootPath || real?.startsWith(rootPath + sep)) return real;
    if (real !== undefined) throw unsafe(key, "leads out of the folder by a symbolic link");
    if ((await orMissing(lstat(path)))?.isSymbolicLink()) throw unsafe(key, "is a symbolic link to nothing");
    return undefined;
  }

  /** A descriptor on the regular file at `key`. */
  async function openFile(key: string): Promise<FileHandle | undefined> {
    assertKey(key, url);
    const rootPath = await root();
    if (rootPath === undefined) return undefined;
    const path = await inside(rootPath, join(rootPath, key), key);
    if (path === undefined) return undefined;
    const file = await orMissing(open(path, openFlags));
    if (file === undefined) return undefined;
    const found = await file.stat();
    if (found.isFile()) return file;
    await file.close();
    // A store has no folders, only keys with slashes: there is no object of that name.
    if (found.isDirectory()) return undefined;
    throw unsafe(key, "is not a regular file");
  }

  /** The object at `key`; bytes are read only when its version is `pinned`, or not the one `known`. */
  async function readFile(
    key: string,
    {
      maxBytes,
      pinned,
      known,
    }: { maxBytes: number; pinned?: string | undefined; known?: string | undefined },
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined> {
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

  /** The real folder in which `key` is to be written, made where it is missing. */
  async function makeFolder(key: string): Promise<string> {
    assertKey(key, url);
    if (options.create === true) await mkdir(folder, { recursive: true });
    const rootPath = (await root()) ?? folder;
    let path = rootPath;
    for (const segment of key.split("/").slice(0, -1)) {
      const next = join(path, segment);
      await mkdir(next).catch((error: unknown) => {
        if (!hasCode(error, "EEXIST")) throw error;
      });
      path = (await inside(rootPath, next, key)) ?? next;
    }
    return path;
  }

  async function row(
    rootPath: string,
    path: string,
    key: string,
    entry: Dirent,
  ): Promise<Listed | undefined> {
    const real = entry.isSymbolicLink() ? await inside(rootPath, path, key) : path;
    const found = real === undefined ? undefined : await orMissing(lstat(real, { bigint: true }));
    // Gone since the folder was read; or a deeper folder.
    if (found === undefined || found.isDirectory()) return undefined;
    if (!found.isFile()) throw unsafe(key, "is not a regular file");
    return { key, size: Number(found.size), version: versionOf(found) };
  }

  async function list(prefix: string, signal: AbortSignal): Promise<readonly Listed[]> {
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
      signal.throwIfAborted();
      const found = await Promise.all(
        entries
          .slice(at, at + lookups)
          .map((entry) => row(rootPath, join(start, entry.name), deep + entry.name, entry)),
      );
      for (const one of found) if (one !== undefined) rows.push(one);
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

  function unsafe(key: string, what: string): RunnerError {
    return new RunnerError("SOURCE_UNSAFE", `${url}: "${key}" ${what}`, {
      hint: "only regular files inside the folder are read: move it away, or put the file itself there",
      fields: { source: url, key },
    });
  }

  return {
    url,

    async list(prefix, signal) {
      signal.throwIfAborted();
      return named(list(prefix, signal), prefix);
    },

    async read(key, { maxBytes, version }, signal) {
      const object = await readFile(key, { maxBytes, pinned: version }, signal);
      return object === "unchanged" ? undefined : object;
    },

    async readIfChanged(key, version, { maxBytes }, signal) {
      return readFile(key, { maxBytes, known: version }, signal);
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

function versionOf(found: { readonly size: bigint; readonly mtimeNs: bigint; readonly ino: bigint }): string {
  return `${found.size}-${found.mtimeNs}-${found.ino}`;
}

/** As the promise; `undefined` where there is no such file, or a file where a folder should be. */
async function orMissing<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
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
      return new RunnerError("SOURCE_REFUSED", `${where}: the file system refused (${code})`, {
        hint: "publishing needs a file system with hard links",
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
