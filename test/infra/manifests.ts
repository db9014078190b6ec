import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { parseAllDocuments } from "yaml";
import { part } from "../support/parts.ts";

/** The checkout. */
export const root = join(import.meta.dirname, "../..");

/** Oldest and newest Kubernetes that the manifests are checked for. */
const versions = ["1.32", "1.37"];

const run = promisify(execFile);
const texts = v.record(v.string(), v.string());

const document = v.looseObject({
  apiVersion: v.string(),
  kind: v.string(),
  metadata: v.looseObject({
    name: v.string(),
    namespace: v.optional(v.string()),
    labels: v.optional(texts, {}),
    annotations: v.optional(texts, {}),
  }),
});

/** One Kubernetes object, of a kind that nothing is known of yet. */
export type Manifest = v.InferOutput<typeof document>;

/** The objects of a YAML text. */
export function manifestsIn(text: string): readonly Manifest[] {
  return parseAllDocuments(text)
    .map((each): unknown => {
      if (each.errors[0] !== undefined) throw each.errors[0];
      return each.toJS();
    })
    .filter((content) => content !== null)
    .map((content) => v.parse(document, content));
}

/** What `kubectl kustomize` makes of a folder. */
export async function kustomize(folder: string): Promise<string> {
  return (await run(part("kubectl"), ["kustomize", folder])).stdout;
}

/**
 * Holds YAML against the schemas of the oldest and the newest Kubernetes, unknown fields included.
 *
 * @returns what is wrong, in the tool's words; kinds that are not Kubernetes' own are passed over
 */
export async function schemaProblems(yaml: string): Promise<readonly string[]> {
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-manifests-"));
  try {
    const file = join(folder, "manifests.yaml");
    writeFileSync(file, yaml);
    const checks = versions.map(async (version) => {
      const args = ["--strict", "--quiet", "--no-warn", "-k", version, file];
      try {
        await run(part("kubernetes-validate"), args);
        return [];
      } catch (error) {
        const said = v.parse(v.object({ stdout: v.string(), stderr: v.string() }), error);
        const lines = `${said.stdout}\n${said.stderr}`.split("\n").filter((line) => line.trim() !== "");
        return lines.map((line) => line.replace(file, version));
      }
    });
    return (await Promise.all(checks)).flat();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const namedRef = v.object({ name: v.string(), key: v.string() });
const environmentEntry = v.looseObject({
  name: v.string(),
  value: v.optional(v.string()),
  valueFrom: v.optional(
    v.object({
      configMapKeyRef: v.optional(namedRef),
      secretKeyRef: v.optional(namedRef),
      fieldRef: v.optional(v.object({ fieldPath: v.string() })),
    }),
  ),
});
const mount = v.looseObject({
  name: v.string(),
  mountPath: v.string(),
  readOnly: v.optional(v.boolean(), false),
});
const security = v.looseObject({
  runAsNonRoot: v.optional(v.boolean()),
  runAsUser: v.optional(v.number()),
  allowPrivilegeEscalation: v.optional(v.boolean()),
  privileged: v.optional(v.boolean()),
  readOnlyRootFilesystem: v.optional(v.boolean()),
  capabilities: v.optional(
    v.object({ drop: v.optional(v.array(v.string())), add: v.optional(v.array(v.string())) }),
  ),
  seccompProfile: v.optional(v.object({ type: v.string() })),
});
const quantities = v.record(v.string(), v.union([v.string(), v.number()]));
const container = v.looseObject({
  name: v.string(),
  image: v.string(),
  command: v.optional(v.array(v.string())),
  args: v.optional(v.array(v.string()), []),
  env: v.optional(v.array(environmentEntry), []),
  volumeMounts: v.optional(v.array(mount), []),
  securityContext: v.optional(security, {}),
  resources: v.optional(
    v.object({ requests: v.optional(quantities, {}), limits: v.optional(quantities, {}) }),
    {},
  ),
  restartPolicy: v.optional(v.string()),
  terminationMessagePolicy: v.optional(v.string()),
  terminationMessagePath: v.optional(v.string()),
  ports: v.optional(v.array(v.looseObject({ hostPort: v.optional(v.number()) })), []),
});
const volume = v.looseObject({
  name: v.string(),
  configMap: v.optional(v.object({ name: v.string() })),
  secret: v.optional(v.object({ secretName: v.string() })),
  projected: v.optional(
    v.object({
      sources: v.array(
        v.object({
          serviceAccountToken: v.object({
            path: v.string(),
            audience: v.string(),
            expirationSeconds: v.number(),
          }),
        }),
      ),
    }),
  ),
});
const pod = v.looseObject({
  serviceAccountName: v.optional(v.string(), "default"),
  automountServiceAccountToken: v.optional(v.boolean()),
  restartPolicy: v.optional(v.string()),
  securityContext: v.optional(security, {}),
  initContainers: v.optional(v.array(container), []),
  containers: v.pipe(v.array(container), v.minLength(1)),
  volumes: v.optional(v.array(volume), []),
});
const template = v.object({ spec: pod });
const jobSpec = v.looseObject({
  backoffLimit: v.optional(v.number()),
  backoffLimitPerIndex: v.optional(v.number()),
  podFailurePolicy: v.optional(v.object({ rules: v.array(v.looseObject({ action: v.string() })) })),
  template,
});
const analysis = v.object({
  metrics: v.array(
    v.looseObject({
      provider: v.looseObject({ job: v.optional(v.object({ spec: jobSpec })) }),
    }),
  ),
});

/** A container of a pod. */
export type Container = v.InferOutput<typeof container>;
/** What a Job says of its pods. */
export type JobSpec = v.InferOutput<typeof jobSpec>;

/** A pod that some object makes. */
export interface Pod {
  /** `Deployment orders` */
  readonly of: string;
  readonly namespace: string;
  readonly spec: v.InferOutput<typeof pod>;
  /** where a Job makes it */
  readonly job: JobSpec | undefined;
}

/** Every pod that objects make: of Deployments, Jobs, CronJobs and the Jobs of an AnalysisTemplate. */
export function podsIn(manifests: readonly Manifest[]): readonly Pod[] {
  return manifests.flatMap((manifest) => {
    const { kind, metadata } = manifest;
    const made = (spec: Pod["spec"], job?: JobSpec): Pod => ({
      of: `${kind} ${metadata.name}`,
      namespace: metadata.namespace ?? "",
      spec,
      job,
    });
    const ofJob = (job: JobSpec): Pod => made(job.template.spec, job);
    switch (kind) {
      case "Deployment":
        return [
          made(v.parse(template, v.parse(v.looseObject({ template }), manifest["spec"]).template).spec),
        ];
      case "Job":
        return [ofJob(v.parse(jobSpec, manifest["spec"]))];
      case "CronJob":
        return [
          ofJob(
            v.parse(v.looseObject({ jobTemplate: v.object({ spec: jobSpec }) }), manifest["spec"]).jobTemplate
              .spec,
          ),
        ];
      case "AnalysisTemplate":
        return v
          .parse(v.looseObject(analysis.entries), manifest["spec"])
          .metrics.flatMap(({ provider }) => (provider.job === undefined ? [] : [ofJob(provider.job.spec)]));
      default:
        return [];
    }
  });
}

/** Containers of a pod, those that start first as well. */
export function containersOf({ spec }: Pod): readonly Container[] {
  return [...spec.initContainers, ...spec.containers];
}

/** Whether a container runs our image. */
export function isOurs({ image }: Container): boolean {
  return /(^|\/)lockkeeper[:@]/.test(image) || /(^|\/)lockkeeper$/.test(image);
}

/** What a ConfigMap or a Secret holds; undefined where there is none of that name. */
export function dataOf(
  manifests: readonly Manifest[],
  {
    kind,
    namespace,
    name,
  }: { readonly kind: "ConfigMap" | "Secret"; readonly namespace: string; readonly name: string },
): Readonly<Record<string, string>> | undefined {
  const found = manifests.find(
    ({ kind: of, metadata }) =>
      of === kind && metadata.name === name && (metadata.namespace ?? namespace) === namespace,
  );
  return found === undefined ? undefined : v.parse(texts, found["data"] ?? found["stringData"] ?? {});
}

/** What the image says of how it is started: its program, its variables, the folder that it is started in. */
export function imageStart(): {
  readonly program: readonly string[];
  readonly variables: Readonly<Record<string, string>>;
  readonly folder: string;
} {
  const stages = readFileSync(join(root, "Dockerfile"), "utf8").split(/^FROM /m);
  const last = stages.at(-1) ?? "";
  const assigned = [...last.matchAll(/^ENV (.+)$/gm)].flatMap(([, line = ""]) => line.split(" "));
  return {
    program: v.parse(v.array(v.string()), JSON.parse(/^ENTRYPOINT (.+)$/m.exec(last)?.[1] ?? "[]")),
    variables: Object.fromEntries(
      assigned.map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)]),
    ),
    folder: [...last.matchAll(/^WORKDIR (\S+)$/gm)].at(-1)?.[1] ?? "/",
  };
}
