import type { AlterTableCmd, Node, RangeVar, WithClause } from "./parse-sql.ts";
import { isOn } from "./statement-facts.ts";

/** PostgreSQL's table locks that others can feel, strongest first. */
export const TABLE_LOCKS = [
  "ACCESS EXCLUSIVE",
  "EXCLUSIVE",
  "SHARE ROW EXCLUSIVE",
  "SHARE",
  "SHARE UPDATE EXCLUSIVE",
  "ROW EXCLUSIVE",
] as const;

/** One of {@link TABLE_LOCKS}. */
export type TableLock = (typeof TABLE_LOCKS)[number];

/**
 * Collects the locks that the statements of one body take on tables that were there before it.
 *
 * Measured on PostgreSQL 15 and 18. What only the catalog knows (the other side of a dropped foreign key,
 * the tables behind `CASCADE`) is not in it, nor are ACCESS SHARE and ROW SHARE, which stop no ordinary work.
 */
export class LockCollector {
  readonly #locks = new Set<TableLock>();
  readonly #created = new Set<string>();

  /** A table this body made is nobody else's yet; `undefined` where the statement does not name the table. */
  take(lock: TableLock, table: string | undefined): void {
    if (table === undefined || !this.#created.has(table)) this.#locks.add(lock);
  }

  create(table: string): void {
    this.#created.add(table);
  }

  /** Distinct, strongest first. */
  get locks(): readonly TableLock[] {
    return TABLE_LOCKS.filter((lock) => this.#locks.has(lock));
  }
}

/** Adds what one statement takes and makes to `locks`. */
export function collectLocks(node: Node, locks: LockCollector): void {
  if ("AlterTableStmt" in node) {
    const { objtype, relation, cmds = [] } = node.AlterTableStmt;
    if (objtype === "OBJECT_TYPE" || objtype === "OBJECT_SEQUENCE") return;
    for (const command of cmds)
      if ("AlterTableCmd" in command) collectAlterTable(command.AlterTableCmd, relation, locks);
  } else if ("CreateStmt" in node) {
    collectCreateTable(node.CreateStmt, locks);
  } else if ("CreateForeignTableStmt" in node) {
    collectCreateTable(node.CreateForeignTableStmt.base ?? {}, locks);
  } else if ("CreateTableAsStmt" in node) {
    if (node.CreateTableAsStmt.if_not_exists !== true) create(node.CreateTableAsStmt.into?.rel, locks);
  } else if ("IndexStmt" in node) {
    take(
      node.IndexStmt.concurrent === true ? "SHARE UPDATE EXCLUSIVE" : "SHARE",
      node.IndexStmt.relation,
      locks,
    );
  } else if ("DropStmt" in node) {
    collectDrop(node.DropStmt, locks);
  } else if ("SelectStmt" in node) {
    collectWith(node.SelectStmt.withClause, locks);
    create(node.SelectStmt.intoClause?.rel, locks);
  } else if ("InsertStmt" in node) {
    collectWrite(node.InsertStmt, locks);
  } else if ("UpdateStmt" in node) {
    collectWrite(node.UpdateStmt, locks);
  } else if ("DeleteStmt" in node) {
    collectWrite(node.DeleteStmt, locks);
  } else if ("MergeStmt" in node) {
    collectWrite(node.MergeStmt, locks);
  } else if ("CopyStmt" in node) {
    if (node.CopyStmt.is_from === true) take("ROW EXCLUSIVE", node.CopyStmt.relation, locks);
  } else {
    collectRare(node, locks);
  }
}

function collectRare(node: Node, locks: LockCollector): void {
  if ("RenameStmt" in node) {
    const { renameType, relation } = node.RenameStmt;
    if (
      renameType !== "OBJECT_INDEX" &&
      renameType !== "OBJECT_ATTRIBUTE" &&
      renameType !== "OBJECT_SEQUENCE"
    )
      take("ACCESS EXCLUSIVE", relation, locks);
  } else if ("AlterObjectSchemaStmt" in node) {
    if (node.AlterObjectSchemaStmt.objectType !== "OBJECT_SEQUENCE")
      take("ACCESS EXCLUSIVE", node.AlterObjectSchemaStmt.relation, locks);
  } else if ("TruncateStmt" in node) {
    takeAll("ACCESS EXCLUSIVE", node.TruncateStmt.relations, locks);
  } else if ("LockStmt" in node) {
    const lock = LOCK_MODES[node.LockStmt.mode ?? 0];
    if (lock !== undefined) takeAll(lock, node.LockStmt.relations, locks);
  } else if ("CreateTrigStmt" in node) {
    take("SHARE ROW EXCLUSIVE", node.CreateTrigStmt.relation, locks);
  } else if ("CreatePolicyStmt" in node) {
    take("ACCESS EXCLUSIVE", node.CreatePolicyStmt.table, locks);
  } else if ("AlterPolicyStmt" in node) {
    take("ACCESS EXCLUSIVE", node.AlterPolicyStmt.table, locks);
  } else if ("RuleStmt" in node) {
    take("ACCESS EXCLUSIVE", node.RuleStmt.relation, locks);
  } else if ("ViewStmt" in node) {
    if (node.ViewStmt.replace === true) take("ACCESS EXCLUSIVE", node.ViewStmt.view, locks);
  } else if ("RefreshMatViewStmt" in node) {
    take(
      node.RefreshMatViewStmt.concurrent === true ? "EXCLUSIVE" : "ACCESS EXCLUSIVE",
      node.RefreshMatViewStmt.relation,
      locks,
    );
  } else if ("CommentStmt" in node) {
    collectComment(node.CommentStmt, locks);
  } else if ("CreateStatsStmt" in node) {
    takeAll("SHARE UPDATE EXCLUSIVE", node.CreateStatsStmt.relations, locks);
  } else if ("CreatePublicationStmt" in node) {
    collectPublished(node.CreatePublicationStmt.pubobjects, locks);
  } else if ("AlterPublicationStmt" in node) {
    collectPublished(node.AlterPublicationStmt.pubobjects, locks);
  } else if ("VacuumStmt" in node) {
    locks.take(
      isOn(node.VacuumStmt.options, "full") ? "ACCESS EXCLUSIVE" : "SHARE UPDATE EXCLUSIVE",
      undefined,
    );
  } else if ("ClusterStmt" in node) {
    locks.take("ACCESS EXCLUSIVE", undefined);
  } else if ("ReindexStmt" in node) {
    locks.take(isOn(node.ReindexStmt.params, "concurrently") ? "SHARE UPDATE EXCLUSIVE" : "SHARE", undefined);
  } else if ("AlterDomainStmt" in node) {
    const { subtype, def } = node.AlterDomainStmt;
    const isChecked =
      subtype === "C" && def !== undefined && "Constraint" in def && def.Constraint.skip_validation !== true;
    if (isChecked || subtype === "V" || subtype === "O") locks.take("SHARE", undefined);
  }
}

/** Modes of `LOCK TABLE` as `lockdefs.h` numbers them; ACCESS SHARE and ROW SHARE are left out. */
const LOCK_MODES: Readonly<Record<number, TableLock>> = {
  3: "ROW EXCLUSIVE",
  4: "SHARE UPDATE EXCLUSIVE",
  5: "SHARE",
  6: "SHARE ROW EXCLUSIVE",
  7: "EXCLUSIVE",
  8: "ACCESS EXCLUSIVE",
};

function collectAlterTable(command: AlterTableCmd, table: RangeVar | undefined, locks: LockCollector): void {
  const { subtype, def } = command;
  switch (subtype) {
    case "AT_ValidateConstraint":
    case "AT_SetStatistics":
    case "AT_SetOptions":
    case "AT_ResetOptions":
    case "AT_SetRelOptions":
    case "AT_ResetRelOptions":
    case "AT_ClusterOn":
    case "AT_DropCluster":
    case "AT_DetachPartitionFinalize":
      return take("SHARE UPDATE EXCLUSIVE", table, locks);
    case "AT_EnableTrig":
    case "AT_EnableAlwaysTrig":
    case "AT_EnableReplicaTrig":
    case "AT_DisableTrig":
    case "AT_EnableTrigAll":
    case "AT_DisableTrigAll":
    case "AT_EnableTrigUser":
    case "AT_DisableTrigUser":
      return take("SHARE ROW EXCLUSIVE", table, locks);
    case "AT_AddConstraint":
      if (def === undefined || !("Constraint" in def) || def.Constraint.contype !== "CONSTR_FOREIGN")
        return take("ACCESS EXCLUSIVE", table, locks);
      take("SHARE ROW EXCLUSIVE", table, locks);
      return collectReferences([def], table, locks);
    case "AT_AddColumn":
      take("ACCESS EXCLUSIVE", table, locks);
      return collectReferences(def === undefined ? [] : [def], table, locks);
    case "AT_AddInherit":
      take("ACCESS EXCLUSIVE", table, locks);
      return takeAll("SHARE UPDATE EXCLUSIVE", def === undefined ? [] : [def], locks);
    case "AT_AttachPartition":
      take("SHARE UPDATE EXCLUSIVE", table, locks);
      return take("ACCESS EXCLUSIVE", partitionOf(def), locks);
    case "AT_DetachPartition": {
      const isConcurrent = def !== undefined && "PartitionCmd" in def && def.PartitionCmd.concurrent === true;
      const lock = isConcurrent ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE";
      take(lock, table, locks);
      return take(lock, partitionOf(def), locks);
    }
    default:
      return take("ACCESS EXCLUSIVE", table, locks);
  }
}

function collectCreateTable(
  statement: {
    relation?: RangeVar;
    tableElts?: Node[];
    inhRelations?: Node[];
    partbound?: unknown;
    if_not_exists?: boolean;
  },
  locks: LockCollector,
): void {
  const { relation, tableElts = [], inhRelations, partbound, if_not_exists: ifNotExists } = statement;
  takeAll(partbound === undefined ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE", inhRelations, locks);
  collectReferences(tableElts, relation, locks);
  if (ifNotExists !== true) create(relation, locks);
}

/** Foreign keys, of the table or of a column, lock the table they refer to, unless it is the same one. */
function collectReferences(
  elements: readonly Node[],
  table: RangeVar | undefined,
  locks: LockCollector,
): void {
  for (const element of elements) {
    if ("ColumnDef" in element) collectReferences(element.ColumnDef.constraints ?? [], table, locks);
    if (!("Constraint" in element) || element.Constraint.contype !== "CONSTR_FOREIGN") continue;
    const { pktable } = element.Constraint;
    if (pktable !== undefined && nameOf(pktable) !== (table && nameOf(table)))
      take("SHARE ROW EXCLUSIVE", pktable, locks);
  }
}

function collectDrop(
  statement: { objects?: Node[]; removeType?: string; concurrent?: boolean },
  locks: LockCollector,
): void {
  const { objects = [], removeType, concurrent } = statement;
  switch (removeType) {
    case "OBJECT_TABLE":
    case "OBJECT_VIEW":
    case "OBJECT_MATVIEW":
    case "OBJECT_FOREIGN_TABLE":
      for (const object of objects) locks.take("ACCESS EXCLUSIVE", qualifiedName(namesOf(object)));
      return;
    case "OBJECT_TRIGGER":
    case "OBJECT_POLICY":
    case "OBJECT_RULE":
      for (const object of objects)
        locks.take("ACCESS EXCLUSIVE", qualifiedName(namesOf(object).slice(0, -1)));
      return;
    case "OBJECT_INDEX":
      return locks.take(concurrent === true ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE", undefined);
    default:
      return;
  }
}

function collectComment(statement: { objtype?: string; object?: Node }, locks: LockCollector): void {
  const names = statement.object === undefined ? [] : namesOf(statement.object);
  switch (statement.objtype) {
    case "OBJECT_TABLE":
    case "OBJECT_VIEW":
    case "OBJECT_MATVIEW":
    case "OBJECT_FOREIGN_TABLE":
      return locks.take("SHARE UPDATE EXCLUSIVE", qualifiedName(names));
    case "OBJECT_COLUMN":
      return locks.take("SHARE UPDATE EXCLUSIVE", qualifiedName(names.slice(0, -1)));
    default:
      return;
  }
}

function collectPublished(objects: readonly Node[] | undefined, locks: LockCollector): void {
  for (const object of objects ?? []) {
    if ("PublicationObjSpec" in object)
      take("SHARE UPDATE EXCLUSIVE", object.PublicationObjSpec.pubtable?.relation, locks);
  }
}

function collectWrite(
  statement: { relation?: RangeVar; withClause?: WithClause },
  locks: LockCollector,
): void {
  collectWith(statement.withClause, locks);
  take("ROW EXCLUSIVE", statement.relation, locks);
}

function collectWith(clause: WithClause | undefined, locks: LockCollector): void {
  for (const cte of clause?.ctes ?? []) {
    if ("CommonTableExpr" in cte && cte.CommonTableExpr.ctequery !== undefined)
      collectLocks(cte.CommonTableExpr.ctequery, locks);
  }
}

function partitionOf(def: Node | undefined): RangeVar | undefined {
  return def !== undefined && "PartitionCmd" in def ? def.PartitionCmd.name : undefined;
}

function take(lock: TableLock, table: RangeVar | undefined, locks: LockCollector): void {
  if (table !== undefined) locks.take(lock, nameOf(table));
}

function takeAll(lock: TableLock, tables: readonly Node[] | undefined, locks: LockCollector): void {
  for (const table of tables ?? []) if ("RangeVar" in table) take(lock, table.RangeVar, locks);
}

function create(table: RangeVar | undefined, locks: LockCollector): void {
  if (table !== undefined) locks.create(nameOf(table));
}

function nameOf(table: RangeVar): string {
  return qualifiedName([...(table.schemaname === undefined ? [] : [table.schemaname]), table.relname ?? ""]);
}

/** One text for a name and its schema; a dot within a quoted name cannot confuse it. */
export function qualifiedName(names: readonly string[]): string {
  return JSON.stringify(names);
}

function namesOf(object: Node): readonly string[] {
  const items = "List" in object ? (object.List.items ?? []) : [];
  return items.flatMap((item) => ("String" in item ? [item.String.sval ?? ""] : []));
}
