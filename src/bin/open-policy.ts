import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { RunnerError } from "../error.ts";
import type { Hook } from "../http/auth/hook.ts";
import { parseHookSecret } from "../http/auth/hook-secret.ts";
import type { HookKeys } from "../http/auth/hook-verifier.ts";
import type { Issuer } from "../http/auth/issuer.ts";
import { fetchedKeys, pinnedKeys } from "../http/auth/key-set.ts";
import { parsePolicy, type Policy } from "../http/auth/policy.ts";
import type { IssuerKeys } from "../http/auth/token.ts";

/** A policy with all that it names: keys of issuers, secrets of hooks. */
export interface OpenPolicy {
  readonly policy: Policy;
  readonly issuers: readonly IssuerKeys[];
  readonly hooks: readonly HookKeys[];
}

/**
 * Reads a policy file and the files that it names, which are looked for beside it.
 *
 * @throws RunnerError `CONFIG` — what of them cannot be read or used
 */
export async function openPolicy(
  file: string,
  targets: ReadonlySet<string> | undefined,
): Promise<OpenPolicy> {
  const policy = await readPolicy(file, targets);
  const folder = dirname(file);
  const hooks = await Promise.all(policy.hooks.map((hook) => withSecrets(hook, folder)));
  assertApart(hooks);
  return { policy, issuers: await openIssuers(policy, file), hooks };
}

/**
 * The keys of a policy's issuers; those with an address are asked for when a token wants them.
 *
 * @param file - the policy's, beside which key sets are looked for
 * @throws RunnerError `CONFIG` — a key set cannot be read or used
 */
export function openIssuers(policy: Policy, file: string): Promise<readonly IssuerKeys[]> {
  return Promise.all(policy.issuers.map((issuer) => withKeys(issuer, dirname(file))));
}

/**
 * Reads a policy file alone.
 *
 * @throws RunnerError `CONFIG` — it cannot be read, or what is wrong with it
 */
export async function readPolicy(file: string, targets: ReadonlySet<string> | undefined): Promise<Policy> {
  return parsePolicy(await readText(file, "the policy"), targets);
}

async function withKeys(issuer: Issuer, folder: string): Promise<IssuerKeys> {
  if (issuer.keys.kind === "uri") return { issuer, keys: fetchedKeys(issuer.keys.uri) };
  const path = resolve(folder, issuer.keys.path);
  return { issuer, keys: pinnedKeys(await readText(path, `the keys of issuer "${issuer.name}"`), path) };
}

async function withSecrets(hook: Hook, folder: string): Promise<HookKeys> {
  if (hook.kind === "sns") return { hook, keys: [] };
  const { kind, name, secretFiles } = hook;
  const keys = secretFiles.map(async (secretFile) => {
    const path = resolve(folder, secretFile);
    const what = `the secret of hook "${name}"`;
    return parseHookSecret(kind, await readText(path, what), `${what}: "${path}"`);
  });
  return { hook, keys: await Promise.all(keys) };
}

/** The address is not signed: with one secret for two hooks, what is sent to one would be taken by the other, under its rules. */
function assertApart(hooks: readonly HookKeys[]): void {
  const owners = new Map<string, string>();
  for (const { hook, keys } of hooks) {
    const proofs = hook.kind === "sns" ? [hook.topicArn] : keys.map((key) => key.toString("base64"));
    for (const proof of new Set(proofs)) {
      const owner = owners.get(proof);
      if (owner !== undefined) {
        const what = hook.kind === "sns" ? "topic" : "secret";
        throw new RunnerError("CONFIG", `the hooks "${owner}" and "${hook.name}" have the same ${what}`, {
          hint: "give each sender a secret of its own, or both rules to one hook",
        });
      }
      owners.set(proof, hook.name);
    }
  }
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("CONFIG", `${what}: "${path}" cannot be read (${code})`, { cause });
  }
}
