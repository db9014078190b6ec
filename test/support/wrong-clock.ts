/**
 * Started with `node --import <this file>?by=<milliseconds>`: the process believes that it is another time. With
 * `by=wild` its clock jumps, a day ahead at one look and a day behind at the next. Time that passes is told right.
 */
const dayMs = 86_400_000;
const by = new URL(import.meta.url).searchParams.get("by") ?? "0";
const Right = Date;
let looks = 0;

function now(): number {
  looks += 1;
  const wrongBy = by === "wild" ? dayMs * (looks % 2 === 0 ? 1 : -1) : Number(by);
  return Right.now() + wrongBy;
}

globalThis.Date = new Proxy(Right, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget) as Date,
  apply: () => new Right(now()).toString(),
  get: (target, key): unknown => (key === "now" ? now : Reflect.get(target, key)),
});
