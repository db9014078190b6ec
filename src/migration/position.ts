/** A place in a text as editors show it: both counted from 1, columns in code points. */
export interface TextPosition {
  readonly line: number;
  readonly column: number;
}

/**
 * Line and column of the code point with index `codePoint` (from 0), as PostgreSQL counts an error's position.
 *
 * LF, CRLF and a lone CR each end one line. An index past the end gives the end.
 */
export function locate(text: string, codePoint: number): TextPosition {
  return locateUnit(text, unitIndex(text, codePoint));
}

/** As {@link locate}, for an index into the string (UTF-16 code units). */
export function locateUnit(text: string, index: number): TextPosition {
  const end = Math.min(index, text.length);
  let line = 1;
  let lineStart = 0;
  for (let i = 0; i < end; i++) {
    const unit = text.charCodeAt(i);
    const isBreak = unit === LF || (unit === CR && text.charCodeAt(i + 1) !== LF);
    if (!isBreak) continue;
    line++;
    lineStart = i + 1;
  }
  return { line, column: countCodePoints(text, lineStart, end) + 1 };
}

/** Code points between two indexes into the string (UTF-16 code units). */
export function countCodePoints(text: string, start: number, end: number): number {
  let count = 0;
  for (let i = start; i < end; i++) {
    const isSecondHalf = (text.charCodeAt(i) & 0xfc00) === 0xdc00 && i > start;
    if (!isSecondHalf) count++;
  }
  return count;
}

/** Where a code point begins: index into the string (UTF-16 code units). */
export function unitIndex(text: string, codePoint: number): number {
  let index = 0;
  for (let left = codePoint; left > 0 && index < text.length; left--) {
    index += (text.charCodeAt(index) & 0xfc00) === 0xd800 ? 2 : 1;
  }
  return index;
}

const LF = 0x0a;
const CR = 0x0d;
