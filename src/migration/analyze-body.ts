import { RunnerError } from "../error.ts";
import type { Analysis } from "./analysis.ts";
import { analyzeSql, analyzeUnsigned } from "./analyze.ts";
import type { BodyPart } from "./format/format.ts";
import type { Direction, Engine } from "./migration.ts";

/** A body, and what is known of it before a look into it. */
export interface BodyText extends BodyPart {
  /** label of its file */
  readonly path: string;
  readonly direction: Direction;
}

/** Whose language it is in, and how thorough the look is: what is signed is known once and for all. */
export interface AnalysisOptions {
  readonly engine: Engine;
  readonly isSigned: boolean;
}

/** What a release says of a body besides its name and checksum. */
export type BodyFacts = Omit<Analysis, "isEmpty">;

/**
 * Decides how a body may run.
 *
 * @throws RunnerError `EMPTY_MIGRATION` - an up file without a statement; the codes of `analyzeSql` or `analyzeCommands`
 */
export async function analyzeBody(body: BodyText, options: AnalysisOptions): Promise<BodyFacts> {
  if (body.code === true) return { tx: "one", alone: false, locks: [], code: true };
  const { isEmpty, ...facts } = await analyze(body, options);
  if (!isEmpty || body.direction === "down") return facts;
  throw new RunnerError("EMPTY_MIGRATION", `"${body.path}" is empty`, {
    hint: emptyHints[options.engine],
    fields: { migration: body.path },
  });
}

const emptyHints: Readonly<Record<Engine, string>> = {
  postgres: "write its SQL, or remove the file; a migration that is to do nothing can hold SELECT 1",
  mongodb: 'write its commands, or remove the file; a migration that is to do nothing can hold [{"ping": 1}]',
};

async function analyze(
  { bytes, path, tx }: BodyText,
  { engine, isSigned }: AnalysisOptions,
): Promise<Analysis> {
  switch (engine) {
    case "postgres":
      return isSigned ? analyzeSql(bytes, path, tx) : analyzeUnsigned(bytes, path, tx);
    case "mongodb": {
      const { analyzeCommands } = await import("./mongo/analyze-commands.ts");
      return analyzeCommands(bytes, path, tx);
    }
  }
}
