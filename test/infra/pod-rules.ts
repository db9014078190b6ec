import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parseConfig } from "../../src/bin/config-file.ts";
import { variableOf } from "../../src/cli/flag.ts";
import { everywhere } from "../../src/cli/flags.ts";
import { parseVerb } from "../../src/cli/program.ts";
import type { Verb } from "../../src/cli/verb.ts";
import { findVerb } from "../../src/cli/verbs.ts";
import { traits } from "../../src/error.ts";
import {
  containersOf,
  dataOf,
  imageStart,
  isOurs,
  root,
  type Container,
  type Manifest,
  type Pod,
} from "./manifests.ts";

/**
 * Exit codes after which another try may end otherwise: a defect (or whatever the kubelet did to the process), a lease that
 * is held, what is unreachable, what was out of time. Every other one is the same answer for ever.
 */
const worthAnotherTry = [1, 30, 31, 32];

/** The exit codes that `podFailurePolicy` ends a Job at, from the list of all failures. */
export const finalExits: readonly number[] = [...new Set(Object.values(traits).map(({ exit }) => exit))]
  .filter((exit) => !worthAnotherTry.includes(exit))
  .toSorted((a, b) => a - b);

/** What keeps a pod from the restricted profile of Kubernetes, and from our own stricter one where it is our image. */
export function securityProblems(pod: Pod): readonly string[] {
  const { spec } = pod;
  const problems: string[] = [];
  for (const key of ["hostNetwork", "hostPID", "hostIPC"]) if (spec[key] === true) problems.push(key);
  for (const volume of spec.volumes) {
    const kinds = Object.keys(volume).filter((key) => key !== "name");
    if (!kinds.every((kind) => ["configMap", "secret", "projected"].includes(kind)))
      problems.push(`volume ${volume.name} is ${kinds.join()}`);
  }
  if (spec.automountServiceAccountToken !== false)
    problems.push("the token for the Kubernetes API is mounted");
  for (const container of containersOf(pod))
    problems.push(...containerProblems(container, spec).map((problem) => `${container.name}: ${problem}`));
  return problems;
}

function containerProblems(container: Container, spec: Pod["spec"]): readonly string[] {
  const { securityContext: own, resources } = container;
  const seccomp = own.seccompProfile ?? spec.securityContext.seccompProfile;
  const rules: readonly (readonly [string, boolean])[] = [
    ["is not told to be no root", (own.runAsNonRoot ?? spec.securityContext.runAsNonRoot) === true],
    ["is root", (own.runAsUser ?? spec.securityContext.runAsUser) !== 0],
    ["may gain privileges", own.allowPrivilegeEscalation === false],
    ["is privileged", own.privileged !== true],
    ["keeps capabilities", own.capabilities?.drop?.includes("ALL") === true],
    ["adds capabilities", own.capabilities?.add === undefined],
    ["has no seccomp profile", seccomp?.type === "RuntimeDefault"],
    ["has a port of the host", container.ports.every(({ hostPort }) => hostPort === undefined)],
    ["has a writable root", own.readOnlyRootFilesystem === true],
    ["has a writable mount", container.volumeMounts.every(({ readOnly }) => readOnly)],
  ];
  const ours: readonly (readonly [string, boolean])[] = [
    ["asks for no memory", typeof resources.requests["memory"] === "string"],
    ["asks for no processor", resources.requests["cpu"] === "50m"],
    ["has no memory limit", /^(128|256)Mi$/.test(String(resources.limits["memory"]))],
    ["has a processor limit", resources.limits["cpu"] === undefined],
    ["leaves no last words", container.terminationMessagePolicy === "FallbackToLogsOnError"],
    ["leaves its last words elsewhere", container.terminationMessagePath === undefined],
    ["has another entry point", container.command === undefined],
  ];
  return [...rules, ...(isOurs(container) ? ours : [])].filter(([, isKept]) => !isKept).map(([what]) => what);
}

/** What of a Job's podFailurePolicy differs from what our exit codes mean. */
export function failurePolicyProblems({ of, job }: Pod): readonly string[] {
  if (job === undefined) return [];
  const isIndexed = job.backoffLimitPerIndex !== undefined;
  if (job.backoffLimit === 0 && job.podFailurePolicy === undefined) return [];
  const [onExit, onDrain] = job.podFailurePolicy?.rules ?? [];
  const wanted = [
    {
      action: isIndexed ? "FailIndex" : "FailJob",
      onExitCodes: { containerName: "lockkeeper", operator: "In", values: finalExits },
    },
    { action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] },
  ];
  const problems = [];
  if (!isDeepStrictEqual([onExit, onDrain], wanted))
    problems.push(`${of}: podFailurePolicy is not ${JSON.stringify(wanted)}`);
  if (job.template.spec.restartPolicy !== "Never") problems.push(`${of}: podFailurePolicy needs Never`);
  return problems;
}

/** A container of ours, its arguments and variables as the kubelet hands them over. */
export interface Started {
  readonly args: readonly string[];
  readonly variables: Readonly<Record<string, string>>;
}

/** What the kubelet would start: references looked up, `$(NAME)` in arguments replaced. */
export function startOf(container: Container, pod: Pod, manifests: readonly Manifest[]): Started {
  const own = Object.fromEntries(
    container.env.map(({ name, value, valueFrom }) => {
      const { namespace } = pod;
      const { configMapKeyRef: config, secretKeyRef: secret, fieldRef } = valueFrom ?? {};
      const found =
        value ??
        (config && dataOf(manifests, { kind: "ConfigMap", namespace, name: config.name })?.[config.key]) ??
        (secret && dataOf(manifests, { kind: "Secret", namespace, name: secret.name })?.[secret.key]) ??
        (fieldRef === undefined ? undefined : "1");
      if (found === undefined) throw new Error(`${pod.of}: nobody has ${JSON.stringify(valueFrom)}`);
      return [name, found];
    }),
  );
  const args = container.args.map((arg) =>
    arg
      .replace(/\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (all, name: string) => own[name] ?? all)
      // of Argo Rollouts
      .replace("{{args.release}}", `sha256:${"0".repeat(64)}`),
  );
  return { args, variables: { ...imageStart().variables, ...own } };
}

/**
 * What is wrong with how our image is started: a verb or flag that does not exist, a value that does not fit, a variable that
 * nobody reads, a target that its configuration does not have, a file that is not mounted.
 */
export async function startProblems(pod: Pod, manifests: readonly Manifest[]): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const container of containersOf(pod).filter(isOurs)) {
    const { args, variables } = startOf(container, pod, manifests);
    const verb = await findVerb(args);
    if (verb === undefined) {
      problems.push(`${pod.of}: there is no verb ${args[0]}`);
      continue;
    }
    try {
      const request = parseVerb(verb, args, variables);
      if (request.kind !== "verb") problems.push(`${pod.of}: prints a text`);
      else {
        const text = (name: string): string | undefined => request.texts.get(name)?.texts[0];
        if (text("url") === undefined)
          problems.push(...targetProblems(container, pod, manifests, text("target")));
        problems.push(
          ...mountProblems(container, pod, manifests, text("token-file"), text("termination-log")),
        );
      }
    } catch (error) {
      problems.push(`${pod.of}: ${String(error)}`);
    }
    const unread = container.env.map(({ name }) => name).filter((name) => !isRead(name, verb, container));
    problems.push(...unread.map((name) => `${pod.of}: nobody reads ${name}`));
  }
  return problems;
}

/** Written in a source file as a whole word, or derived from a flag of the verb; or used in the arguments; or of an SDK. */
function isRead(name: string, verb: Verb, container: Container): boolean {
  const flags = [...verb.flags, ...everywhere].filter(({ hasVariable }) => hasVariable);
  if (flags.some((flag) => variableOf(flag) === name)) return true;
  if (container.args.some((arg) => arg.includes(`$(${name})`))) return true;
  sources ??= readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => readFileSync(join(root, "src", file), "utf8"))
    .join("\n");
  return /^AWS_[A-Z_]+$/.test(name) || sources.includes(`"${name}"`);
}

let sources: string | undefined;

function targetProblems(
  container: Container,
  pod: Pod,
  manifests: readonly Manifest[],
  target: string | undefined,
): readonly string[] {
  const { variables, folder } = imageStart();
  const file = variables["LOCKKEEPER_CONFIG"] ?? `${folder}/lockkeeper.yaml`;
  const text = contentAt(file, container, pod, manifests);
  if (text === undefined) return target === undefined ? [] : [`${pod.of}: nothing is mounted at ${file}`];
  const parsed = parseConfig(text);
  if (parsed.kind === "problems")
    return parsed.problems.map(({ path, message }) => `${pod.of}: ${path} ${message}`);
  const { targets, trust, policy } = parsed.config;
  const chosen = target === undefined ? Object.keys(targets) : [target];
  const beside = [
    ...Object.values(trust).flatMap((each) => ("keys" in each ? each.keys.map(String) : [])),
    ...(policy === undefined ? [] : [policy]),
  ].map((name) => `${file.slice(0, file.lastIndexOf("/"))}/${name}`);
  const files = [
    ...beside,
    ...chosen.flatMap((name) => {
      const { urlFile } = targets[name]?.database ?? {};
      return urlFile === undefined ? [] : [urlFile];
    }),
  ];
  return [
    ...chosen.filter((name) => targets[name] === undefined).map((name) => `${pod.of}: no target ${name}`),
    ...files
      .filter((path) => contentAt(path, container, pod, manifests) === undefined)
      .map((path) => `${pod.of}: nothing is mounted at ${path}`),
  ];
}

/** Mounts without a volume, and a token file that no projected token is at. */
function mountProblems(
  container: Container,
  pod: Pod,
  manifests: readonly Manifest[],
  tokenFile: string | undefined,
  terminationLog: string | undefined,
): readonly string[] {
  const problems = container.volumeMounts
    .filter(({ name }) => !pod.spec.volumes.some((volume) => volume.name === name))
    .map(({ name }) => `${pod.of}: there is no volume ${name}`);
  for (const { configMap, secret } of pod.spec.volumes) {
    const { namespace } = pod;
    const kind = configMap === undefined ? "Secret" : "ConfigMap";
    const name = configMap?.name ?? secret?.secretName;
    if (name !== undefined && dataOf(manifests, { kind, namespace, name }) === undefined)
      problems.push(`${pod.of}: there is no ${kind} ${name}`);
  }
  if (tokenFile !== undefined && tokenAt(tokenFile, container, pod) === undefined)
    problems.push(`${pod.of}: no token at ${tokenFile}`);
  if (terminationLog !== undefined) problems.push(`${pod.of}: the kubelet reads /dev/termination-log`);
  return problems;
}

/** The projected token that a file is, where it is one. */
export function tokenAt(
  file: string,
  { volumeMounts }: Container,
  { spec }: Pod,
): { readonly audience: string; readonly expirationSeconds: number } | undefined {
  for (const { name, mountPath } of volumeMounts) {
    const volume = spec.volumes.find((candidate) => candidate.name === name);
    for (const { serviceAccountToken: token } of volume?.projected?.sources ?? [])
      if (`${mountPath}/${token.path}` === file) return token;
  }
  return undefined;
}

/** What a container reads at a path that a ConfigMap or a Secret is mounted at. */
function contentAt(
  path: string,
  { volumeMounts }: Container,
  { spec, namespace }: Pod,
  manifests: readonly Manifest[],
): string | undefined {
  const cut = path.lastIndexOf("/");
  const [folder, key] = [path.slice(0, cut), path.slice(cut + 1)];
  const mounted = volumeMounts.find(({ mountPath }) => mountPath === folder);
  const volume = spec.volumes.find(({ name }) => name === mounted?.name);
  const kind = volume?.configMap === undefined ? "Secret" : "ConfigMap";
  const name = volume?.configMap?.name ?? volume?.secret?.secretName;
  return name === undefined ? undefined : dataOf(manifests, { kind, namespace, name })?.[key];
}
