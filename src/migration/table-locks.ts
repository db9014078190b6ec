import { collectAlterTable, collectReferences } from "./alter-table-locks.ts";
import {
  create,
  qualifiedName,
  take,
  takeAll,
  type LockCollector,
  type TableLock,
} from "./lock-collector.ts";
import type { Node, RangeVar, WithClause } from "./parse-sql.ts";
import { isOn } from "./statement-facts.ts";

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

function namesOf(object: Node): readonly string[] {
  const items = "List" in object ? (object.List.items ?? []) : [];
  return items.flatMap((item) => ("String" in item ? [item.String.sval ?? ""] : []));
}
