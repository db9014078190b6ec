/**
 * lockkeeper as a library: converge a database from an application's start.
 *
 * @module
 */
export { converge, ConvergeError, type ConvergeControl, type ConvergeOptions } from "./converge.ts";
export { RunnerError, traits, type ErrorFields, type RunnerErrorCode } from "./error.ts";
export type { RunEvent } from "./executor/event.ts";
export type { RunResult, StepResult } from "./executor/result.ts";
export type { Position } from "./history/entry.ts";
export type { MigrationContext, MigrationFunction } from "./migration/code.ts";
export type { RunOutcome } from "./history/run.ts";
export type { TrustText } from "./release/trust/trust-text.ts";
export type { DependencyPolicy, Limits } from "./run/target.ts";
export type { SourceOptions } from "./source/open.ts";
