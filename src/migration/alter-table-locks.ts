import { nameOf, take, takeAll, type LockCollector } from "./lock-collector.ts";
import type { AlterTableCmd, Node, RangeVar } from "./parse-sql.ts";

/** Adds what one action of `ALTER TABLE` takes. */
export function collectAlterTable(
  command: AlterTableCmd,
  table: RangeVar | undefined,
  locks: LockCollector,
): void {
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

/** Foreign keys, of the table or of a column, lock the table they refer to, unless it is the same one. */
export function collectReferences(
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

function partitionOf(def: Node | undefined): RangeVar | undefined {
  return def !== undefined && "PartitionCmd" in def ? def.PartitionCmd.name : undefined;
}
