import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { RunnerError } from "../error.ts";
import { hasCode } from "./folder-write.ts";
import { makeFolders } from "./make-folders.ts";
import { assertKey, type FolderLocation } from "./location.ts";

/** How a folder is taken. */
export interface FolderOptions {
  /** a folder that does not exist reads as an empty one and the first write makes it; else it is `SOURCE_NOT_FOUND` */
  readonly create?: boolean;
}

// NONBLOCK: opening a FIFO must not wait for its writer. Windows has neither flag, nor what they guard against.
const openFlags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** From keys to paths and descriptors, and never out of the folder. */
export interface FolderPaths {
  /** The folder without symbolic links; `undefined` where it is missing and may be. */
  readonly root: () => Promise<string | undefined>;
  /** `path` without symbolic links, when it lies inside the folder; `undefined` when nothing is there. */
  readonly inside: (rootPath: string, path: string, key: string) => Promise<string | undefined>;
  /** A descriptor on the regular file at `key`. */
  readonly openFile: (key: string) => Promise<FileHandle | undefined>;
  /** The real folder in which `key` is to be written, made where it is missing. */
  readonly makeFolder: (key: string) => Promise<string>;
  /** The error of what is not read. */
  readonly unsafe: (key: string, what: string) => RunnerError;
}

/**
 * Symbolic links are followed only to what lies inside the folder itself, as Kubernetes mounts a ConfigMap's files.
 *
 * Its functions throw `SOURCE_NOT_FOUND` where the folder is missing, `SOURCE_UNSAFE` for what leads out or is no
 * regular file, and the file system's own errors.
 */
export function folderPaths({ folder, url }: FolderLocation, options: FolderOptions): FolderPaths {
  async function root(): Promise<string | undefined> {
    const real = await orMissing(realpath(folder));
    if (real === undefined && options.create === true) return undefined;
    if (real !== undefined && (await stat(real)).isDirectory()) return real;
    throw new RunnerError("SOURCE_NOT_FOUND", `${url}: there is no such folder`, {
      hint: "check the path",
      fields: { source: url },
    });
  }

  async function inside(rootPath: string, path: string, key: string): Promise<string | undefined> {
    const real = await orMissing(realpath(path));
    if (real === rootPath || real?.startsWith(rootPath + sep)) return real;
    if (real !== undefined) throw unsafe(key, "leads out of the folder by a symbolic link");
    if ((await orMissing(lstat(path)))?.isSymbolicLink()) throw unsafe(key, "is a symbolic link to nothing");
    return undefined;
  }

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

  async function makeFolder(key: string): Promise<string> {
    assertKey(key, url);
    if (options.create === true) await makeFolders(folder);
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

  function unsafe(key: string, what: string): RunnerError {
    return new RunnerError("SOURCE_UNSAFE", `${url}: "${key}" ${what}`, {
      hint: "only regular files inside the folder are read: move it away, or put the file itself there",
      fields: { source: url, key },
    });
  }

  return { root, inside, openFile, makeFolder, unsafe };
}

/** As the promise; `undefined` where there is no such file, or a file where a folder should be. */
export async function orMissing<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}
