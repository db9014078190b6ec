import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Command } from "./measure.ts";

/** A control group whose programs are ended when they take more memory than it allows, as in a container. */
export interface MemoryLimit extends Disposable {
  /** the same program, inside */
  inside(command: Command): Command;
  /** how many were ended so far */
  ended(): number;
}

/** Makes one; `undefined` where the machine lets us make none: it takes Linux and root. */
export function openMemoryLimit(mib: number): MemoryLimit | undefined {
  const group = groups().find(({ isUsable }) => isUsable);
  if (group === undefined) return undefined;
  const folder = path.join(group.parent, `lockkeeper-bench-${process.pid}`);
  try {
    mkdirSync(folder);
    writeFileSync(path.join(folder, group.limit), String(mib * 2 ** 20));
  } catch {
    return undefined;
  }
  return {
    inside: (command) => ({
      ...command,
      program: "/bin/sh",
      args: ["-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', folder, command.program, ...command.args],
    }),
    ended: () => Number(/^oom_kill (\d+)$/m.exec(readFileSync(path.join(folder, group.events), "utf8"))?.[1]),
    [Symbol.dispose]: () => rmdirSync(folder),
  };
}

/** Version 1 has a tree for memory alone, version 2 one for everything. */
function groups(): readonly {
  readonly parent: string;
  readonly limit: string;
  readonly events: string;
  readonly isUsable: boolean;
}[] {
  const root = "/sys/fs/cgroup";
  const given = path.join(root, "cgroup.subtree_control");
  const isVersion2 = existsSync(given) && readFileSync(given, "utf8").includes("memory");
  return [
    {
      parent: path.join(root, "memory"),
      limit: "memory.limit_in_bytes",
      events: "memory.oom_control",
      isUsable: existsSync(path.join(root, "memory")),
    },
    { parent: root, limit: "memory.max", events: "memory.events", isUsable: isVersion2 },
  ];
}
