import { RunnerError, type RunnerErrorCode } from "./error.ts";
import type { RunEvent } from "./executor/event.ts";
import type { RunResult } from "./executor/result.ts";
import type { TrustText } from "./release/trust/trust-text.ts";
import { newRunId } from "./run/request.ts";
import type { DependencyPolicy, Limits, Target } from "./run/target.ts";
import { run } from "./runner.ts";
import type { SourceOptions } from "./source/open.ts";

/** Which release stream a database is to follow; nothing is read from the environment. */
export interface ConvergeOptions {
  /** `s3://bucket/prefix`, `gs://bucket/prefix` or a folder with signed releases */
  readonly source: string;
  readonly stream: string;
  /** default `default` */
  readonly environment?: string;
  /** `{ threshold, keys }`, each key PEM text or the path of a public key file; or `{ root }`, a root document or its path */
  readonly trust: TrustText;
  /** `postgres://user:password@host:5432/database` or `mongodb://user:password@host:27017/database` */
  readonly database: string;
  /** past the pooler, for statements outside transactions */
  readonly directDatabase?: string;
  /** `sha256:…`; only this release, whatever the bucket calls its newest */
  readonly release?: string;
  /** databases of other services, by the names that migrations depend on; each is asked for the stream of that name */
  readonly services?: Readonly<Record<string, string>>;
  /** default `refuse` */
  readonly dependencies?: DependencyPolicy;
  /** apply also what the release marks as breaking; default false */
  readonly allowBreaking?: boolean;
  /** name of the application in history and runs; default `library` */
  readonly appliedBy?: string;
  /** milliseconds; default: wait 10 min for another runner, lock time-out 5 s, no others */
  readonly limits?: Partial<Limits>;
  /** endpoints, regions and credentials of the buckets' clients */
  readonly storage?: SourceOptions;
}

/** What `converge` is told besides. */
export interface ConvergeControl {
  /** stops the run at its next safe point */
  readonly signal?: AbortSignal;
  onEvent?(event: RunEvent): void;
}

/** A run that did not succeed: {@link RunnerError} with what got done all the same. */
export class ConvergeError extends RunnerError {
  readonly result: RunResult;

  constructor(error: RunnerError, result: RunResult) {
    const { code, message, hint, fields } = error;
    super(code satisfies RunnerErrorCode, message, {
      ...(hint === undefined ? {} : { hint }),
      fields,
      cause: error.cause,
    });
    this.result = result;
  }
}

const defaultLimits: Limits = { waitMs: 600_000, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 0 };

/**
 * Brings a database to the newest signed release, or waits until another process has: for an application's start.
 * Cheap when there is nothing to do: one request to the bucket and one query.
 *
 * @throws ConvergeError with the code and what was done; `USAGE`, `TRUST_INVALID` - the options themselves are wrong
 */
export async function converge(options: ConvergeOptions, control: ConvergeControl = {}): Promise<RunResult> {
  const target = await openTarget(options);
  try {
    const result = await run(
      {
        id: newRunId(target.name),
        action: "apply",
        goal: { kind: "latest" },
        release: options.release ?? null,
        plan: null,
        trigger: "library",
        caller: { issuer: "library", subject: options.appliedBy ?? "library", rule: null },
        labels: {},
        limits: target.limits,
        isAccepted: false,
      },
      target,
      {
        signal: control.signal ?? new AbortController().signal,
        emit: (event) => control.onEvent?.(event),
        now: () => new Date(),
      },
    );
    if (result.error !== null) throw new ConvergeError(result.error, result);
    return result;
  } finally {
    await target.driver.close();
  }
}

async function openTarget(options: ConvergeOptions): Promise<Target> {
  const [{ openSource }, { signedReleases }, { readTrust }, { openDriver }, { engineOf }, { rdsRoots }] =
    await Promise.all([
      import("./source/open.ts"),
      import("./release/signed.ts"),
      import("./release/trust/trust-file.ts"),
      import("./driver/open.ts"),
      import("./driver/url.ts"),
      import("./host/rds-roots.ts"),
    ]);
  const engine = engineOf(options.database);
  const { stream, environment = "default" } = options;
  const trust = await readTrust(options.trust, ".", "the option trust");
  const source = await openSource(options.source, options.storage);
  const direct = options.directDatabase;
  return {
    name: stream,
    stream,
    environment,
    releases: signedReleases({ source, stream, environment, engine, trust }),
    driver: await openDriver(options.database, {
      ...(direct === undefined ? {} : { directUrl: direct }),
      rdsRoots,
    }),
    limits: { ...defaultLimits, ...options.limits },
    dependencies: options.dependencies ?? "refuse",
    allowsBreaking: options.allowBreaking ?? false,
    async openService(service) {
      const url = options.services?.[service];
      if (url === undefined) {
        throw new RunnerError(
          "CONFIG",
          `a migration depends on the service "${service}", and nothing says which database is its own`,
          { hint: `name it: services: { "${service}": "postgres://…" }`, fields: { service } },
        );
      }
      const other = await openDriver(url, { rdsRoots });
      return { target: service, stream: service, driver: other, [Symbol.asyncDispose]: () => other.close() };
    },
  };
}
