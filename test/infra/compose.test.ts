import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { describe, expect, onTestFinished, test } from "vitest";
import { parse } from "yaml";
import { variableOf } from "../../src/cli/flag.ts";
import { everywhere } from "../../src/cli/flags.ts";
import { up } from "../../src/cli/command/up.ts";
import { needs, part } from "../support/parts.ts";
import { root } from "./manifests.ts";

needs("compose-schema", "kubernetes-validate");

const run = promisify(execFile);
const dev = join(root, "infra/dev");
const compose: unknown = parse(readFileSync(join(dev, "compose.yaml"), "utf8"));
const { name, services } = v.parse(
  v.object({
    name: v.string(),
    services: v.record(
      v.string(),
      v.looseObject({
        image: v.optional(v.string()),
        ports: v.optional(v.array(v.string()), []),
        environment: v.optional(v.record(v.string(), v.string()), {}),
      }),
    ),
  }),
  compose,
);

/** What the JSON schema of compose files has against these services; its checker lies beside kubernetes-validate. */
async function schemaSays(checked: unknown): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-compose-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "compose.json");
  writeFileSync(file, JSON.stringify(checked));
  const checker = join(dirname(part("kubernetes-validate")), "python");
  const args = ["-W", "ignore", "-m", "jsonschema", "-i", file, part("compose-schema")];
  return run(checker, args).then(
    () => "",
    (error: unknown) => v.parse(v.object({ stderr: v.string() }), error).stderr,
  );
}

describe("infra/dev", () => {
  test("compose.yaml has the form of the Compose Specification", async () => {
    // The top-level name is younger than this schema.
    expect(name).toBe("lockkeeper-dev");
    expect(
      await schemaSays({ services: v.parse(v.looseObject({ services: v.unknown() }), compose).services }),
    ).toBe("");
    expect(await schemaSays({ services: { one: { imag: "postgres" } } })).toContain("imag");
  });

  test("nothing listens but on loopback, and test.env has each server's address", () => {
    const ports = Object.values(services).flatMap((service) => service.ports);
    const published = ports.map((port) => /^(127\.0\.0\.1:\d+):\d+$/.exec(port)?.[1] ?? port);
    const variables = readFileSync(join(dev, "test.env"), "utf8").matchAll(/^([A-Z_]+)=(\S+)$/gm);
    const given = [...variables].map(([, variable = "", url = ""]) => ({ variable, url }));
    expect(given.map(({ url }) => /127\.0\.0\.1:\d+/.exec(url)?.[0] ?? url).toSorted()).toEqual(
      published.toSorted(),
    );
    const known = ["parts.ts", "setup.ts"].map((file) =>
      readFileSync(join(root, "test/support", file), "utf8"),
    );
    for (const { variable } of given) expect(known.join(""), variable).toContain(`"${variable}"`);
  });

  test("the last LocalStack that needs no account is the one that is named", () => {
    expect(services["localstack"]?.image).toBe("docker.io/localstack/localstack:4.14");
  });

  test("our image is run as Kubernetes runs it, with variables that it reads", () => {
    expect(services["lockkeeper"]).toMatchObject({
      read_only: true,
      user: "65532:65532",
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
    });
    const flags = [...up.flags, ...everywhere].map(variableOf);
    const known = (variable: string): boolean =>
      flags.includes(variable) || variable === "DATABASE_URL" || variable.startsWith("AWS_");
    expect(
      Object.keys(services["lockkeeper"]?.environment ?? {}).filter((variable) => !known(variable)),
    ).toEqual([]);
  });

  test("README.md names files that exist", () => {
    const text = readFileSync(join(dev, "README.md"), "utf8");
    const named = [...text.matchAll(/(?:infra|test|node_modules)\/[\w./-]+\w/g)].map(([path]) => path);
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});
