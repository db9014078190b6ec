/** A bundle line with one member replaced: `altered(line, "dsseEnvelope.payloadType", …)`; undefined removes it. */
export function altered(line: string, path: string, value: unknown): string {
  const bundle: unknown = JSON.parse(line);
  const names = path.split(".");
  const last = names.pop() ?? "";
  Reflect.set(Object(memberAt(bundle, names)), last, value);
  return JSON.stringify(bundle);
}

/** The member of a bundle line at such a path. */
export function memberOf(line: string, path: string): unknown {
  return memberAt(JSON.parse(line), path.split("."));
}

function memberAt(bundle: unknown, names: readonly string[]): unknown {
  let at = bundle;
  for (const name of names) at = Reflect.get(Object(at), name);
  return at;
}
