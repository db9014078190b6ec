/**
 * Completes the lock files where `npm install` could not: `node test/parts/complete-lock.ts`, after each change of a dependency.
 *
 * Tools with native parts list one optional package for each platform. A registry that mirrors only some platforms makes
 * npm leave the others out of the lock, and then `npm ci` refuses the lock ("Missing: … from lock file") everywhere, and a
 * contributor on another platform gets none. An entry needs no more than version and platform; npm looks the rest up where
 * it installs it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

/** The parts of a lock file that matter here. */
interface Lock {
  packages: Record<string, LockedPackage>;
}

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Entries that a lock lacks, by their place in node_modules. */
export function missingEntries({ packages }: Lock): Record<string, LockedPackage> {
  const missing: Record<string, LockedPackage> = {};
  for (const [place, locked] of Object.entries(packages)) {
    for (const [name, wanted] of Object.entries(locked.optionalDependencies ?? {})) {
      const known = { ...packages, ...missing };
      const found = placesSeenFrom(place, name).find((candidate) => candidate in known);
      if (found !== undefined && fits(known[found]?.version, wanted)) continue;
      const top = `node_modules/${name}`;
      const entry = {
        version: wanted.replace(/^[~^]/, ""),
        ...platformOf(name),
        ...(locked.dev === true ? { dev: true } : {}),
        optional: true,
      };
      missing[top in known ? `${place}/node_modules/${name}` : top] = entry;
    }
  }
  return missing;
}

/** Whether a version is the wanted one or, where the owner gives a range, of the same major version. */
function fits(version: string | undefined, wanted: string): boolean {
  if (/^\d/.test(wanted)) return version === wanted;
  return version?.split(".")[0] === wanted.replace(/^[~^]/, "").split(".")[0];
}

/** Where Node would look for `name` from a package at `place`, nearest first. */
function placesSeenFrom(place: string, name: string): string[] {
  const places = [];
  for (let at = place; at !== ""; at = at.slice(0, Math.max(0, at.lastIndexOf("/node_modules/")))) {
    places.push(`${at}/node_modules/${name}`);
  }
  return [...places, `node_modules/${name}`];
}

/** `@oxfmt/binding-linux-arm64-musl` is for Linux on 64-bit ARM with musl: all such packages are named this way. */
function platformOf(name: string): Pick<LockedPackage, "os" | "cpu" | "libc"> {
  const words = name.replace(/^@[^/]+\//, "").split(/[-.]/);
  const systems: Record<string, string> = { windows: "win32", openharmony: "openharmony" };
  const os = words.find((word) =>
    [
      "aix",
      "android",
      "darwin",
      "freebsd",
      "linux",
      "netbsd",
      "openbsd",
      "openharmony",
      "sunos",
      "win32",
      "windows",
    ].includes(word),
  );
  const cpu = words.find((word) =>
    ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "wasm32", "x64"].includes(
      word,
    ),
  );
  const libc = words.some((word) => word.startsWith("musl"))
    ? "musl"
    : words.some((word) => word.startsWith("gnu"))
      ? "glibc"
      : undefined;
  if (cpu === undefined) throw new Error(`for which platform is ${name}?`);
  return {
    cpu: [cpu],
    ...(libc === undefined ? {} : { libc: [libc] }),
    ...(os === undefined ? {} : { os: [systems[os] ?? os] }),
  };
}

if (import.meta.main) {
  for (const file of [
    "../../package-lock.json",
    "../../infra/bundle/package-lock.json",
    "npm/package-lock.json",
  ])
    complete(file);
}

function complete(name: string): void {
  const file = path.join(import.meta.dirname, name);
  const lock = JSON.parse(readFileSync(file, "utf8")) as Lock;
  const missing = missingEntries(lock);
  Object.assign(lock.packages, missing);
  // npm's own order: by code unit.
  lock.packages = Object.fromEntries(Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  console.log(`${name}: ${Object.keys(missing).length} entries added`);
}
