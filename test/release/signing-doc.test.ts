import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { CreateAliasCommand, CreateKeyCommand, KMSClient } from "@aws-sdk/client-kms";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { layout } from "../../src/release/layout.ts";
import { startS3 } from "../support/bucket.ts";
import type { S3Server } from "../support/bucket.ts";
import { needs, part } from "../support/parts.ts";
import { makeKey, overwrite, readKey, signedLine, tempFolder } from "../support/release.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const documentation = readFileSync(join(root, "infra/signing.md"), "utf8");
const region = "us-east-1";

function blocks(language: string): readonly string[] {
  const fence = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm");
  return [...documentation.matchAll(fence)].map(([, block = ""]) => block);
}

describe("infra/signing.md", () => {
  needs("ministack", "cosign");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("ministack");
  });
  afterAll(() => server?.stop());

  /** A folder in which somebody follows the document. */
  async function desk() {
    const folder = await tempFolder({
      "migrations/1_users.up.sql": "create table users (id int);",
      "migrations/1_users.down.sql": "drop table users;",
      "more-migrations/1_users.up.sql": "create table users (id int);",
      "more-migrations/1_users.down.sql": "drop table users;",
      "more-migrations/2_email.up.sql": "alter table users add email text;",
      "more-migrations/2_email.down.sql": "alter table users drop email;",
    });
    const bin = join(folder.path, ".bin");
    mkdirSync(bin);
    const script = `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src/bin/cli.ts")}" "$@"\n`;
    writeFileSync(join(bin, "lockkeeper"), script);
    chmodSync(join(bin, "lockkeeper"), 0o755);
    const env = {
      PATH: `${bin}:${dirname(part("cosign"))}:/usr/local/bin:/usr/bin:/bin`,
      HOME: folder.path,
      AWS_ENDPOINT_URL: server.endpoint,
      AWS_REGION: region,
      AWS_ACCESS_KEY_ID: server.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
    };
    const shell = (text: string) => run("sh", ["-euc", text], { cwd: folder.path, env });
    return { ...folder, shell };
  }

  test(
    "leads by its blocks alone from keys in files and in AWS KMS to releases of two signers, one of them cosign's",
    { timeout: 180_000 },
    async () => {
      const client = new KMSClient({ endpoint: server.endpoint, region, credentials: server.credentials });
      const key = await client.send(
        new CreateKeyCommand({ KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY" }),
      );
      const TargetKeyId = key.KeyMetadata?.KeyId ?? "";
      await client.send(new CreateAliasCommand({ AliasName: "alias/orders", TargetKeyId }));
      await using here = await desk();
      const said: string[] = [];
      for (const block of blocks("sh")) {
        const { stdout, stderr } = await here.shell(block);
        said.push(stdout + stderr);
      }
      expect(said.join("")).not.toContain("correct horse");
      const [file = "", kms = "", , waiting = "", second = "", cosign = ""] = said;
      expect(file).toMatch(/outcome +published/);
      expect(kms).toMatch(/verdict +verified/);
      expect(waiting).toMatch(/verdict +waits: 1 of the 2 trusted signatures/);
      expect(second).toMatch(/outcome +published/);
      expect(cosign).toMatch(/new +2_email\.up\.sql/);
      expect(cosign).toMatch(/outcome +published/);
      // as a runner judges it
      const verified = await here.shell(
        "lockkeeper verify --source prod-bucket --stream orders --trust prod.json",
      );
      expect(verified.stdout).toMatch(/version +2/);

      // what the last section says is refused
      const digest = (await here.shell("jq -r .digest published.json")).stdout.trim();
      const add = `lockkeeper sign ./prod-bucket --trust prod.json --release ${digest} --bundle other.json`;
      const own = `jq .predicate statement.json > predicate.json
        cosign attest-blob --key awskms:///alias/orders --predicate predicate.json --type urn:lockkeeper:release:v1 \\
          --bundle other.json --use-signing-config=false --tlog-upload=false -y migrations/1_users.up.sql`;
      await here.shell(own);
      await expect(here.shell(add)).rejects.toMatchObject({
        code: 20,
        stderr: expect.stringContaining("PAYLOAD_DIFFERS") as string,
      });
      const before = await readKey(here.source, `prod-bucket/${layout.release(digest.slice(7))}`);
      const stranger = makeKey();
      const [line = ""] = before.toString().split("\n");
      const claimed = JSON.parse(line) as { verificationMaterial: unknown };
      const statement = await readKey(here.source, "statement.json");
      const forged = JSON.parse(signedLine(statement, stranger)) as object;
      const { verificationMaterial } = claimed;
      await overwrite(
        here.source,
        "other.json",
        Buffer.from(JSON.stringify({ ...forged, verificationMaterial })),
      );
      await expect(here.shell(add)).rejects.toMatchObject({
        code: 20,
        stderr: expect.stringMatching(/is no signature of the key that it names[\s\S]*BUNDLE/) as string,
      });
    },
  );

  test("is right that what cosign signs with Ed25519 does not count", async () => {
    await using here = await desk();
    await here.shell(`lockkeeper keygen --out ed --type ed25519; lockkeeper keygen --out alice
      lockkeeper publish ./migrations ./bucket --stream orders --key alice --output json > published.json
      export COSIGN_PASSWORD=
      cosign import-key-pair --key ed --output-key-prefix imported
      lockkeeper sign ./bucket --release "$(jq -r .digest published.json)" --statement-out statement.json
      cosign attest-blob --key imported.key --statement statement.json --bundle ed.json \\
        --use-signing-config=false --tlog-upload=false -y`);
    const add = `lockkeeper sign ./bucket --release "$(jq -r .digest published.json)" --bundle ed.json --trust ed.pub`;
    await expect(here.shell(add)).rejects.toMatchObject({
      code: 20,
      stderr: expect.stringMatching(/cosign 3 signs a hash with Ed25519[\s\S]*BUNDLE/) as string,
    });
  });

  test("says to install AWS's client where it is missing", async () => {
    await using here = await desk();
    const hook = `import { registerHooks } from "node:module";
      registerHooks({ resolve(name, context, next) {
        if (name === "@aws-sdk/client-kms") throw Object.assign(new Error("not found"), { code: "ERR_MODULE_NOT_FOUND" });
        return next(name, context);
      } });`;
    const options = `--import data:text/javascript,${encodeURIComponent(hook).replaceAll("'", "%27")}`;
    const asked = here.shell(
      `NODE_OPTIONS='${options}' lockkeeper keygen --out orders --public-of awskms:///alias/orders`,
    );
    await expect(asked).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining("npm install @aws-sdk/client-kms@3") as string,
    });
  });
});
