import { expect, test } from "vitest";
import { readArchive } from "../../../src/migration/format/atlas-txtar.ts";
import { processorMs } from "../../support/processor.ts";

/** Millions of characters: what takes twice as long for each of them would take hours. */
test.for([
  ["checks", `-- checks.sql --\n${"SELECT true;\n".repeat(200_000)}-- migration.sql --\nSELECT 1;\n`],
  [
    "parts",
    `${Array.from({ length: 100_000 }, (_, n) => `-- checks/n${n}.sql --\n`).join("")}-- migration.sql --\nSELECT 1;\n`,
  ],
] as const)("an archive of Atlas's with very many %s is read in proportion to its length", ([, parts]) => {
  const text = `-- atlas:txtar\n\n${parts}`;
  expect(processorMs(() => readArchive(text, "1_a.sql"))).toBeLessThan(20_000);
});
