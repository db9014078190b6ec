import type { Adoption } from "../adopt/adopt.ts";
import { placeName } from "../history/foreign.ts";
import { formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** How an adoption ended: only shown, or declared. */
export type AdoptionEnd = "previewed" | "adopted";

/** An adoption as programs read it. */
export function describeAdoption(adoption: Adoption, end: AdoptionEnd): Record<string, unknown> {
  const { finding, changes, inStep } = adoption;
  return {
    tool: finding.place.tool,
    table: placeName(finding.place),
    fits: finding.misfits.length === 0,
    applied: finding.applied.map(({ migration, assumed }) => ({
      seq: migration.seq,
      version: migration.version,
      path: migration.path,
      certainty: assumed === null ? "exact" : "assumed",
      assumed,
    })),
    repeatable: adoption.repeatable.map(({ path }) => path),
    misfits: finding.misfits,
    notes: finding.notes,
    changes: changes.map(({ direction, migration }) => ({
      direction,
      version: migration.version,
      path: migration.path,
    })),
    declared: end === "adopted" ? changes.length : 0,
    inStep: inStep === null ? null : { tool: inStep.tool, table: placeName(inStep) },
  };
}

/** An adoption as a person reads it: what was understood, what is assumed, what does not fit, what was done. */
export function formatAdoption(adoption: Adoption, end: AdoptionEnd, paint: Paint): string {
  const { finding, repeatable, changes, inStep } = adoption;
  const { place, applied, misfits, notes } = finding;
  const parts = [
    `${paint.strong(placeName(place))} is ${place.tool}'s; it stands for ${count(applied.length, "migration")}`,
  ];
  if (applied.length + repeatable.length > 0) {
    const again = repeatable.map(({ path }) => ["", path, paint.good("exact")]);
    const rows = applied.map(({ migration, assumed }) => [
      migration.version,
      migration.path,
      assumed === null ? paint.good("exact") : paint.warn(`assumed: ${assumed}`),
    ]);
    parts.push(formatTable(["version", "migration", "certainty"], [...rows, ...again], paint));
  }
  if (notes.length > 0) parts.push(notes.map((note) => `note: ${note}`).join("\n"));
  if (misfits.length > 0)
    parts.push(
      misfits
        .map(({ reason, hint }) => `${paint.bad("does not fit:")} ${reason}\n  next: ${hint}`)
        .join("\n"),
    );
  parts.push(summaryOf(changes, end, misfits.length > 0, paint));
  if (inStep !== null && misfits.length === 0)
    parts.push(
      `${placeName(inStep)} ${end === "adopted" ? "is" : "would be"} kept in step: ${inStep.tool} can take over again`,
    );
  return parts.join("\n\n");
}

function summaryOf(changes: Adoption["changes"], end: AdoptionEnd, isMisfit: boolean, paint: Paint): string {
  if (isMisfit) return paint.bad("nothing can be adopted yet");
  const back = changes.filter(({ direction }) => direction === "down").length;
  const ups = changes.length - back;
  const what = [
    ...(ups > 0 || back === 0 ? [`${count(ups, "migration")} as applied`] : []),
    ...(back > 0 ? [`${count(back, "migration")} as taken back`] : []),
  ].join(", ");
  return end === "adopted" ? paint.good(`declared ${what}`) : `would declare ${what}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
