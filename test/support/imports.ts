import { createRequire } from "node:module";
import { type ICruiseOptions, type ICruiseResult, type IFlattenedRuleSet, cruise } from "dependency-cruiser";

/** What dependency-cruiser found in `src`. */
export interface ImportReport {
  /** every file of src it read, relative to the checkout */
  readonly files: readonly string[];
  /** one line for each import that `.dependency-cruiser.cjs` forbids */
  readonly violations: readonly string[];
}

/** Holds the imports of `src` to the rules of `.dependency-cruiser.cjs`; run from the checkout's root. */
export async function checkImports(): Promise<ImportReport> {
  const { forbidden, options } = createRequire(import.meta.url)("../../.dependency-cruiser.cjs") as {
    forbidden: NonNullable<IFlattenedRuleSet["forbidden"]>;
    options: ICruiseOptions;
  };
  // Through its API: its command line warns of a missing TypeScript 6, which swc makes unnecessary.
  const { output } = await cruise(["src"], { ...options, validate: true, ruleSet: { forbidden } });
  const result = output as ICruiseResult;
  return {
    files: result.modules.map((module) => module.source).filter((file) => file.startsWith("src/")),
    violations: result.summary.violations.map(({ rule, from, to, cycle }) =>
      [`${rule.name}: ${from}`, ...(cycle?.map((step) => step.name) ?? [to])].join(" -> "),
    ),
  };
}

if (import.meta.main) {
  const { files, violations } = await checkImports();
  for (const violation of violations) console.error(violation);
  console.log(`imports: ${files.length} files, ${violations.length} violations`);
  process.exitCode = violations.length === 0 ? 0 : 1;
}
