import { RunnerError } from "../../error.ts";
import type { RootFile, RootState } from "../../release/trust/anchor.ts";
import type { Row } from "./connection.ts";
import { literal, type TableNames } from "./tables.ts";

/** Roots that a stream was begun under, oldest first. */
export function selectRoots(t: TableNames, stream: string): string {
  return `SELECT version, document, bundles FROM ${t.roots} WHERE stream = ${literal(stream)} ORDER BY version`;
}

/** One row of {@link selectRoots}. */
export function readRoot(row: Row): RootFile {
  return {
    version: Number(row["version"]),
    document: textOf(row["document"]),
    bundles: textOf(row["bundles"]),
  };
}

/** Remembers roots that were proven just now; a version that is there is what was proven now. */
export function rememberRoots(t: TableNames, stream: string, root: RootState): readonly string[] {
  return root.files.map(
    ({ version, document, bundles }) =>
      `INSERT INTO ${t.roots} AS known (stream, version, document, bundles) VALUES (${literal(stream)}, ${version}, ${bytesLiteral(document)}, ${bytesLiteral(bundles)})
 ON CONFLICT (stream, version) DO UPDATE SET document = excluded.document, bundles = excluded.bundles
 WHERE (known.document, known.bundles) IS DISTINCT FROM (excluded.document, excluded.bundles)`,
  );
}

/** The assignment that raises a stream's root version, and never lowers it. */
export function raiseRootVersion({ version }: RootState): string {
  return `root_version = greatest(root_version, ${version})`;
}

/** As bytes, because that is what was signed: a database may have another encoding, which lacks some of its characters. */
function bytesLiteral(text: string): string {
  return `pg_catalog.decode('${Buffer.from(text).toString("hex")}', 'hex')`;
}

function textOf(bytes: unknown): string {
  if (!Buffer.isBuffer(bytes)) throw new RunnerError("INTERNAL", "a root was not stored as bytes");
  return bytes.toString();
}
