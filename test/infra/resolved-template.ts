import { isMap, isScalar, isSeq, parseDocument } from "yaml";

/** Values of parameters; what is absent has its default. */
export type Parameters = Readonly<Record<string, string>>;

/** A resource of a CloudFormation template, as it is made with these parameters. */
export interface ResolvedResource {
  readonly type: string;
  readonly properties: Readonly<Record<string, unknown>>;
}

interface Template {
  readonly Parameters: Readonly<Record<string, { readonly Type: string; readonly Default: string | number }>>;
  readonly Conditions: Readonly<Record<string, unknown>>;
  readonly Resources: Readonly<
    Record<
      string,
      {
        readonly Type: string;
        readonly Condition?: string;
        readonly Properties: Readonly<Record<string, unknown>>;
      }
    >
  >;
}

/** One of CloudFormation's functions, in its short form `!Name`. */
class Call {
  readonly fn: string;
  readonly argument: unknown;
  constructor(fn: string, argument: unknown) {
    this.fn = fn;
    this.argument = argument;
  }
}

/** A node of the document as a value, with calls where it has tags of CloudFormation's. */
function valueOf(node: unknown): unknown {
  const plain = isSeq(node)
    ? node.items.map(valueOf)
    : isMap(node)
      ? Object.fromEntries(node.items.map(({ key, value }) => [String(valueOf(key)), valueOf(value)]))
      : isScalar(node)
        ? node.value
        : node;
  const tag = isSeq(node) || isMap(node) || isScalar(node) ? node.tag : undefined;
  return tag !== undefined && /^![A-Z]/.test(tag) ? new Call(tag.slice(1), plain) : plain;
}

/**
 * The resources that a template makes. Knows the functions that our templates use, and no others.
 *
 * @param values - of the pseudo parameters, `AWS::Region` and others
 * @param attributes - of resources, by `Name` for `!Ref` and by `Name.Attribute` for `!GetAtt`
 */
export function resolveTemplate(
  text: string,
  given: Parameters,
  values: Readonly<Record<string, string>>,
  attributes: Readonly<Record<string, string>>,
): ReadonlyMap<string, ResolvedResource> {
  // it knows no such tags, and would say so of each
  const { contents } = parseDocument(text, { logLevel: "silent" });
  const template = valueOf(contents) as Template;
  const known = new Map<string, unknown>(Object.entries(values));
  for (const [name, { Type, Default }] of Object.entries(template.Parameters)) {
    const value = given[name] ?? String(Default);
    known.set(name, Type === "CommaDelimitedList" ? value.split(",") : value);
  }
  for (const name of Object.keys(given))
    if (!known.has(name)) throw new Error(`the template has no parameter ${name}`);

  const lookUp = (name: string): unknown => {
    if (name === "AWS::NoValue") return undefined;
    const value = known.get(name) ?? attributes[name];
    if (value === undefined) throw new Error(`nobody says what ${name} is`);
    return value;
  };
  const holds = (name: string): boolean => resolve(template.Conditions[name]) === true;
  const called = ({ fn, argument }: Call): unknown => {
    const list = (): unknown[] => (Array.isArray(argument) ? argument : [argument]);
    switch (fn) {
      case "Ref":
        return lookUp(String(argument));
      case "GetAtt":
        return lookUp(String(argument));
      case "Condition":
        return holds(String(argument));
      case "Sub":
        return String(argument).replaceAll(/\$\{([^}]+)\}/g, (_, name: string) => String(lookUp(name)));
      case "If": {
        const [name, yes, no] = list();
        return resolve(holds(String(name)) ? yes : no);
      }
      case "Join": {
        const [by, parts] = list();
        return (resolve(parts) as string[]).join(String(by));
      }
      case "Equals": {
        const [left, right] = list().map(resolve);
        return String(left) === String(right);
      }
      case "And":
        return list().map(resolve).every(Boolean);
      case "Or":
        return list().map(resolve).some(Boolean);
      case "Not":
        return !list().map(resolve).some(Boolean);
      default:
        throw new Error(`the function ${fn} is not known here`);
    }
  };
  const resolve = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(resolve).filter((item) => item !== undefined);
    if (typeof value !== "object" || value === null) return value;
    if (value instanceof Call) return called(value);
    return Object.fromEntries(
      Object.entries(value)
        .map(([name, inner]) => [name, resolve(inner)] as const)
        .filter(([, inner]) => inner !== undefined),
    );
  };
  return new Map(
    Object.entries(template.Resources)
      .filter(([, { Condition }]) => Condition === undefined || holds(Condition))
      .map(([name, { Type, Properties }]) => [
        name,
        { type: Type, properties: resolve(Properties) as Record<string, unknown> },
      ]),
  );
}
