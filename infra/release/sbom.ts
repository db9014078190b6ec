/**
 * Prints the bill of materials of what `npm install lockkeeper` brings, as CycloneDX: `node infra/release/sbom.ts`.
 *
 * npm makes it. `npm sbom --omit=dev` alone leaves out packages that a development tool depends on as well (11.19 drops
 * pg and yaml), so npm is shown a lock file without the development tools.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Lock {
  readonly packages: Record<string, { readonly dev?: boolean; readonly devDependencies?: object }>;
}

const root = join(import.meta.dirname, "../..");
const read = (file: string): string => readFileSync(join(root, file), "utf8");

const { devDependencies: _dev, ...manifest } = JSON.parse(read("package.json")) as {
  devDependencies: object;
};
const lock = JSON.parse(read("package-lock.json")) as Lock;
const shipped = Object.entries(lock.packages)
  .filter(([, { dev }]) => dev !== true)
  .map(([place, { devDependencies: _tools, ...rest }]) => [place, rest]);

const parent = mkdtempSync(join(tmpdir(), "lockkeeper-sbom-"));
try {
  // npm takes the folder's name for the package's
  const folder = join(parent, "lockkeeper");
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  writeFileSync(
    join(folder, "package-lock.json"),
    JSON.stringify({ ...lock, packages: Object.fromEntries(shipped) }),
  );
  const args = ["sbom", "--package-lock-only", "--sbom-format=cyclonedx", "--sbom-type=application"];
  execFileSync("npm", args, { cwd: folder, stdio: ["ignore", "inherit", "inherit"] });
} finally {
  rmSync(parent, { recursive: true, force: true });
}
