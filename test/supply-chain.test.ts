import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");

interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly hasInstallScript?: boolean;
  readonly resolved?: string;
}

const read = (file: string): string => readFileSync(join(root, file), "utf8");
const lock = JSON.parse(read("package-lock.json")) as {
  readonly packages: Readonly<Record<string, LockedPackage>>;
};
const manifest = JSON.parse(read("package.json")) as Readonly<Record<string, Record<string, string>>>;

/** What `npm install lockkeeper` brings, by its place in node_modules. */
const shipped = Object.entries(lock.packages).filter(
  ([place, { dev, devOptional }]) => place !== "" && dev !== true && devOptional !== true,
);

describe("what we build upon", () => {
  test("is pinned to one version each, and locked", () => {
    for (const section of ["dependencies", "devDependencies", "optionalDependencies"]) {
      for (const [name, version] of Object.entries(manifest[section] ?? {})) {
        expect(version, name).toMatch(/^(npm:[a-z-]+@)?\d+\.\d+\.\d+(-[a-z0-9.]+)?$/);
      }
    }
  });

  test("is the very bytes that were looked at, and comes from nowhere else than the registry", () => {
    expect(shipped.length).toBeGreaterThan(50);
    for (const [place, { integrity, resolved }] of shipped) {
      // platforms that a registry did not have are completed by name and version only
      if (!place.includes("@esbuild/")) expect(integrity, place).toMatch(/^sha512-/);
      expect(resolved ?? "https://", place).toMatch(/^https:/);
    }
  });

  test("bundles the image with the bundler that the tests had, locked as everything else", () => {
    const alone = JSON.parse(read("infra/bundle/package-lock.json")) as typeof lock;
    const entries = Object.entries(alone.packages).filter(([place]) => place !== "");
    expect(entries.length).toBeGreaterThan(10);
    for (const [place, { integrity, version }] of entries) {
      expect(integrity, place).toMatch(/^sha512-/);
      if (!place.includes("rolldown")) continue;
      expect(integrity, place).toBe(lock.packages[place]?.integrity);
      expect(version, place).toBe(lock.packages[place]?.version);
    }
    expect(alone.packages["node_modules/rolldown"]?.version).toBe(manifest["devDependencies"]?.["rolldown"]);
  });

  test("runs nothing when it is installed", () => {
    const allowed = Object.entries(manifest["allowScripts"] ?? {}).filter(([, isAllowed]) => isAllowed);
    const running = shipped.filter(([, { hasInstallScript }]) => hasInstallScript === true);
    // optional, and refused by `allowScripts`; it works without its script
    expect(running.map(([place]) => place)).toEqual(["node_modules/esbuild"]);
    expect(allowed.map(([name]) => name)).not.toContain("esbuild");
  });

  test("is listed in the bill of materials, and what only builds and tests it is not", async () => {
    const { stdout } = await run(process.execPath, ["infra/release/sbom.ts"], {
      cwd: root,
      maxBuffer: 1 << 24,
    });
    const { components } = JSON.parse(stdout) as {
      readonly components: readonly {
        readonly name: string;
        readonly purl: string;
      }[];
    };
    const listed = new Set(components.map(({ name }) => name));
    for (const name of Object.keys(manifest["dependencies"] ?? {})) expect(listed).toContain(name);
    for (const name of ["vitest", "oxlint", "@sigstore/mock"]) expect(listed).not.toContain(name);
    for (const { name, purl } of components) expect(purl, name).toMatch(/^pkg:npm\//);
  });
});

test("a release is verified with one package besides Node's own modules", async () => {
  const script = `
    import { registerHooks } from "node:module";
    const packages = new Set();
    registerHooks({ resolve(specifier, context, next) {
      const found = next(specifier, context);
      const [, name] = /node_modules\\/((?:@[^/]+\\/)?[^/]+)\\/(?!.*node_modules)/.exec(found.url) ?? [];
      if (name !== undefined) packages.add(name);
      return found;
    } });
    await import("./src/release/verify.ts");
    console.log(JSON.stringify([...packages]));`;
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", script], { cwd: root });
  expect(JSON.parse(stdout)).toEqual(["valibot"]);
});

describe("a workflow", () => {
  const folder = ".github/workflows";

  test.for(readdirSync(join(root, folder)))(
    "%s uses pinned actions and asks for the least rights",
    (name) => {
      const text = read(join(folder, name));
      const used = [...text.matchAll(/uses: *(\S+)/g)].map(([, action]) => action ?? "");
      expect(used.length).toBeGreaterThan(0);
      for (const action of used) expect(action).toMatch(/^[\w.-]+\/[\w.-]+@[0-9a-f]{40}$/);
      const { permissions, jobs } = parse(text) as {
        readonly permissions: object;
        readonly jobs: Readonly<
          Record<string, { readonly permissions?: object; readonly "timeout-minutes"?: number }>
        >;
      };
      expect(permissions).toEqual({});
      for (const job of Object.values(jobs)) {
        expect(job.permissions).toBeDefined();
        expect(job["timeout-minutes"]).toBeDefined();
      }
      // what a person may name, such as a branch or a title, is handed over by the environment and never pasted into a script
      for (const [, script] of text.matchAll(/run: *(?:\|\n)?([^\n]*(?:\n {10,}[^\n]*)*)/g)) {
        expect(script).not.toContain("${{");
      }
    },
  );
});
