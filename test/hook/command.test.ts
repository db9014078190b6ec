import { describe, expect, test } from "vitest";
import type { RunnerError } from "../../src/error.ts";
import { commandBackup, type Argv } from "../../src/hook/command.ts";

const facts = {
  run: "t.01",
  target: "t",
  stream: "orders",
  environment: "default",
  release: "sha256:00",
  from: null,
  to: "3",
};
const never = new AbortController().signal;

async function make(
  argv: Argv,
  signal = never,
): Promise<{ lines: string[]; error: RunnerError | undefined }> {
  const lines: string[] = [];
  let error: RunnerError | undefined;
  const backup = commandBackup(argv, { timeoutMs: 0, variables: { PATH: process.env["PATH"] } });
  await backup.make(facts, signal, (line) => lines.push(line)).catch((cause: RunnerError) => (error = cause));
  return { lines, error };
}

const node = (script: string): Argv => [process.execPath, "-e", script];

/** Whether a process is there, and not merely waits for its parent to notice that it has ended. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("a backup's command", () => {
  test("is given the run's facts as variables, no shell, and its output is passed on line by line", async () => {
    const script =
      "console.log(process.argv[1]); console.error('a\\rb\\u001b[31m'); for (const k of Object.keys(process.env).sort()) if (k.startsWith('LOCK')) console.log(k + '=' + process.env[k])";
    const { lines, error } = await make([...node(script), "$HOME `id` *"]);
    expect(error).toBeUndefined();
    expect(lines).toContain("$HOME `id` *");
    expect(lines.filter((line) => line.startsWith("LOCKKEEPER_"))).toEqual([
      "LOCKKEEPER_RUN_ENVIRONMENT=default",
      "LOCKKEEPER_RUN_FROM=0",
      "LOCKKEEPER_RUN_ID=t.01",
      "LOCKKEEPER_RUN_RELEASE=sha256:00",
      "LOCKKEEPER_RUN_STREAM=orders",
      "LOCKKEEPER_RUN_TARGET=t",
      "LOCKKEEPER_RUN_TO=3",
    ]);
    // No control character reaches a terminal or a log.
    expect(lines.filter((line) => ["a", "b [31m"].includes(line))).toHaveLength(2);
  });

  test("that writes without end is read to its end, but only its first lines are passed on", async () => {
    const { lines, error } = await make(
      node(
        "for (let n = 0; n < 5000; n += 1) console.log('x'.repeat(2000)); process.stdout.write('y'.repeat(5e6))",
      ),
    );
    expect(error).toBeUndefined();
    expect(lines).toHaveLength(201);
    expect(Math.max(...lines.map(({ length }) => length))).toBe(500);
    expect(lines.at(-1)).toBe("4801 more lines are not shown");
  });

  test.for([
    ["an exit code", node("process.exit(3)"), { exitCode: 3 }],
    ["a signal", node("process.kill(process.pid, 'SIGKILL')"), { signal: "SIGKILL" }],
    ["a program that is not there", ["/nowhere/pg_dump"], {}],
    ["a file that is no program", ["/etc/passwd"], {}],
  ] as const)("fails with %s", async ([, argv, fields]) => {
    const { error } = await make(argv as Argv);
    expect(error).toMatchObject({ code: "BACKUP_FAILED", exit: 20, fields });
  });

  test("is named without its folder and its arguments", () => {
    const options = { timeoutMs: 0, variables: {} };
    expect(commandBackup(["/opt/bin/dump", "--password=x"], options).by).toBe("command dump");
  });

  test("is ended with all that it started, also where it does not want to", { timeout: 60_000 }, async () => {
    const control = new AbortController();
    const lines: string[] = [];
    const stubborn =
      "process.on('SIGTERM', () => {}); console.log('pid', process.pid); setInterval(() => {}, 1000);";
    const script = `${stubborn} require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(stubborn)}], { stdio: 'inherit' })`;
    const backup = commandBackup(node(script), { timeoutMs: 0, variables: {} });
    const made = backup.make(facts, control.signal, (line) => lines.push(line));
    await expect
      .poll(() => lines.filter((line) => line.startsWith("pid")), { timeout: 20_000 })
      .toHaveLength(2);
    control.abort(new Error("stop"));
    await expect(made).rejects.toThrow("stop");
    const pids = lines.map((line) => Number(line.replace("pid ", "")));
    await expect.poll(() => pids.filter(isAlive), { timeout: 20_000 }).toEqual([]);
  });

  test("may leave something behind that goes on, when it was a success", async () => {
    const child = "setTimeout(() => {}, 60000)";
    const script = `const c = require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: 'inherit' }); console.log(c.pid); c.unref()`;
    const { lines, error } = await make(node(script));
    expect(error).toBeUndefined();
    const pid = Number(lines[0]);
    expect(isAlive(pid)).toBe(true);
    process.kill(pid, "SIGKILL");
  });
});
