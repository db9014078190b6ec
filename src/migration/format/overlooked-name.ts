import { unknownFile } from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";

/**
 * What becomes of a name that a tool passes over in silence: an error where somebody will have meant a migration,
 * ignored where it is plainly none.
 */
export function readOverlooked(
  name: string,
  { tool, wanted }: { readonly tool: string; readonly wanted: string },
): { readonly problem: FolderProblem } | { readonly ignored: string } {
  if (name.startsWith(".")) return { ignored: "hidden file" };
  if (isPutAside(name)) return { ignored: `put aside, so ${tool} overlooks it` };
  const isMeant = SQL.test(name) || (NUMBERED.test(name) && !DOCUMENT.test(name));
  if (!isMeant) return { ignored: "not named like a migration" };
  return {
    problem: unknownFile(
      name,
      `looks like a migration, but ${tool} would overlook it`,
      `rename it to ${wanted}, or move it away`,
    ),
  };
}

/** Whether a name says that its file is not to be run: `1_a.sql.bak`. */
export function isPutAside(name: string): boolean {
  return PUT_ASIDE.test(name);
}

const PUT_ASIDE = /(~|\.(bak|backup|orig|old|rej|tmp|sw[op]|disabled|off|skip|ignore|example))$/i;
const SQL = /\.(sql|psql|pgsql|ddl)$/i;
const NUMBERED = /^v?[0-9]+[_-]/i;
const DOCUMENT = /\.(md|markdown|txt|rst|adoc|html|pdf|png|svg)$/i;
