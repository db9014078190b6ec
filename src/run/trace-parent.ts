/** Where in whose trace something belongs, as W3C Trace Context says it in the header `traceparent`. */
export interface TraceParent {
  /** 32 hexadecimal digits */
  readonly traceId: string;
  /** 16 hexadecimal digits */
  readonly spanId: string;
  /** whoever began the trace records it */
  readonly isSampled: boolean;
}

/** version 00, or one of the future with more behind it: https://www.w3.org/TR/trace-context/#traceparent-header */
const shape = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/** Undefined for what is no `traceparent`: it is ignored then, as the specification wants it. */
export function parseTraceParent(text: string | undefined): TraceParent | undefined {
  const match = shape.exec(text ?? "");
  if (match === null) return undefined;
  const [, version, traceId = "", spanId = "", flags = "", rest] = match;
  if (version === "00" && rest !== undefined) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}
