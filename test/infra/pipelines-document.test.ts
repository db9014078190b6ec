import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { exitCodes } from "../../src/cli/exit-code.ts";
import { traits } from "../../src/error.ts";
import { explain } from "../../src/http/auth/explain.ts";
import { parsePolicy } from "../../src/http/auth/policy.ts";
import { needs, part } from "../support/parts.ts";
import { tempFolder } from "../support/release.ts";
import { infra } from "./pipeline.ts";

const run = promisify(execFile);
const root = join(infra, "..");
const text = readFileSync(join(infra, "pipelines.md"), "utf8");

function blocks(words: string): readonly { readonly name: string; readonly body: string }[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${words}(?: ([a-z-]+))?\\n([\\s\\S]*?)^\`\`\`$`, "gm"))].map(
    ([, name = "", body = ""]) => ({ name, body }),
  );
}

/** A policy of one block of the page. */
function policyOf(body: string) {
  const frame = { schema: "urn:lockkeeper:policy:v1", audience: "https://migrate.example", hooks: {} };
  const parts = JSON.parse(body) as Record<string, unknown>;
  return parsePolicy(JSON.stringify({ ...frame, ...parts }), new Set(["orders-prod"]));
}

/** Runs a linter; what it found is the error. */
async function lint(program: string, args: readonly string[], cwd: string): Promise<string> {
  return run(program, args, { cwd }).then(
    () => "",
    (error: { stdout?: string; stderr?: string }) => `${error.stdout ?? ""}${error.stderr ?? ""}`,
  );
}

describe("infra/pipelines.md", () => {
  test.for(blocks("json claims").map(({ name, body }) => [name, body] as const))(
    "the rule of %s loads without a warning and knows the claims beside it, and not one of them less",
    ([name, body]) => {
      const policy = policyOf(blocks("json policy").find((block) => block.name === name)?.body ?? "{}");
      expect(policy.warnings).toEqual([]);
      const [rule] = policy.rules;
      if (rule?.from.kind !== "issuer") throw new Error("the rule is for no issuer");
      const { issuer, match } = rule.from;
      const claims = JSON.parse(body) as Record<string, unknown>;
      const ask = (known: Readonly<Record<string, unknown>>) =>
        rule.actions.map(
          (action) =>
            explain(
              policy,
              { kind: "issuer", issuer, claims: known },
              { action, target: "orders-prod", environment: "production", hasDigest: true },
            ).decision,
        );
      expect(new Set(ask(claims))).toEqual(new Set(["allowed"]));
      for (const { claim } of match) {
        const less = Object.fromEntries(Object.entries(claims).filter(([one]) => one !== claim));
        expect(new Set(ask(less)), claim).toEqual(new Set(["stranger"]));
      }
      expect(claims).toMatchObject({ iss: policy.issuers[0]?.issuer, aud: policy.audience });
    },
  );

  test("names only files, codes and exit codes that there are", () => {
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, file = ""]) => file);
    expect(links.length).toBeGreaterThan(15);
    for (const link of links) expect(existsSync(join(infra, link)), link).toBe(true);
    for (const file of text.matchAll(/infra\/[a-z-]+\/[\w.-]+/g))
      expect(existsSync(join(root, file[0])), file[0]).toBe(true);
    const anchors = [...text.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor);
    const titles = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
      title.toLowerCase().replaceAll(" ", "-"),
    );
    for (const anchor of anchors) expect(titles).toContain(anchor);
    for (const [code] of text.matchAll(/(?<=`)[A-Z]+_[A-Z_]+(?=`)/g))
      if (!code.startsWith("LOCKKEEPER")) expect(Object.keys(traits)).toContain(code);
    const listed = [...text.matchAll(/^\| ([\d, ]+) \|/gm)].flatMap(([, codes = ""]) => codes.split(", "));
    expect(listed.length).toBeGreaterThan(8);
    for (const code of listed) expect(Object.keys(exitCodes)).toContain(code);
  });

  test("all YAML beside it, and on it, can be read", () => {
    const files = [
      "github-action/action.yml",
      "gitlab/templates/lockkeeper.yml",
      "codefresh/codefresh.yml",
      "codefresh/with-step.yml",
      "spinnaker/orca-local.yml",
      "harness/steps.yaml",
      "harness/container-step.yaml",
    ];
    const texts = files.map((file) => readFileSync(join(infra, file), "utf8"));
    const gitlab = blocks("yaml gitlab").map(({ body }) => body);
    expect(gitlab).toHaveLength(1);
    for (const one of [...texts, ...gitlab])
      for (const document of parseAllDocuments(one)) {
        expect(document.errors).toEqual([]);
        expect(document.warnings).toEqual([]);
      }
  });
});

describe("GitHub's files", () => {
  needs("actionlint", "shellcheck");

  test("actionlint finds nothing in our workflows, and none of their scripts is unsafe", async () => {
    expect(await lint(part("actionlint"), ["-shellcheck", part("shellcheck")], root)).toBe("");
  });

  test("actionlint finds nothing in the workflow of the page, whose inputs and outputs are the action's", async () => {
    const [workflow] = blocks("yaml workflow");
    if (workflow === undefined) throw new Error("the page has no workflow");
    await using folder = await tempFolder();
    mkdirSync(join(folder.path, ".git"));
    mkdirSync(join(folder.path, ".github/workflows"), { recursive: true });
    cpSync(join(infra, "github-action"), join(folder.path, "infra/github-action"), { recursive: true });
    // so that it reads the action itself
    const local = (words: string): string =>
      words.replaceAll(/OWNER\/lockkeeper\/infra\/github-action@\w+/g, "./infra/github-action");
    const file = join(folder.path, ".github/workflows/migrate.yml");
    const check = async (words: string): Promise<string> => {
      writeFileSync(file, words);
      return lint(part("actionlint"), ["-shellcheck", part("shellcheck"), file], folder.path);
    };
    expect(local(workflow.body)).not.toBe(workflow.body);
    expect(await check(local(workflow.body))).toBe("");
    expect(
      await check(local(workflow.body).replace("folder: migrations", "folder-name: migrations")),
    ).toContain('input "folder-name" is not defined');
    expect(
      await check(
        local(workflow.body).replace("steps.migrate.outputs.to ", "steps.migrate.outputs.version "),
      ),
    ).toContain("version");
  });

  test("shellcheck finds nothing in the script", async () => {
    expect(await lint(part("shellcheck"), [join(infra, "github-action/trigger.sh")], root)).toBe("");
  });

  test("each input reaches the script as a variable, and none of them is written into a command", () => {
    const action = parse(readFileSync(join(infra, "github-action/action.yml"), "utf8")) as {
      readonly inputs: Readonly<Record<string, object>>;
      readonly runs: {
        readonly steps: readonly { readonly run: string; readonly env: Readonly<Record<string, string>> }[];
      };
    };
    const script = readFileSync(join(infra, "github-action/trigger.sh"), "utf8");
    const [step, ...more] = action.runs.steps;
    expect(more).toEqual([]);
    expect(step?.run).not.toContain("${{");
    const used = Object.entries(step?.env ?? {}).map(([variable, value]) => {
      expect(script, variable).toContain(`\${${variable}:-`);
      return /^\$\{\{ inputs\.([a-z-]+) \}\}$/.exec(value)?.[1];
    });
    expect(new Set(used)).toEqual(new Set(Object.keys(action.inputs)));
  });
});
