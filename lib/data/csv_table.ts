import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parse } from 'csv-parse/sync';
import { CellcamError, codeOf, messageOf } from '../errors';
import { requireString } from '../options';

function readText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(requireString(path, 'path'));
  } catch (error) {
    if (codeOf(error) === 'ERR_INVALID_ARG') throw error;
    if (codeOf(error) === 'ENOENT') {
      throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected a table at ${path} but there is no such file`, {
        cause: error,
      });
    }
    throw new CellcamError('ERR_TABLE', `Cannot read the table ${path}: ${messageOf(error)}`, { cause: error });
  }
  if (!path.endsWith('.gz')) return bytes.toString('utf8');
  try {
    return gunzipSync(bytes).toString('utf8');
  } catch (error) {
    throw new CellcamError('ERR_TABLE', `Expected gzip data in ${path}: ${messageOf(error)}`, { cause: error });
  }
}

const CSV = { bom: true, record_delimiter: '\n', skip_empty_lines: true };

/** HPA's public table (kaggle_2021.tsv) has the address of each image for its ID, and label indices beside the names in Label. */
const PUBLIC_NAMES: Record<string, string> = { Image: 'ID', Label_idx: 'Label', Label: 'Label names' };

function isPublicTable(header: string[]): boolean {
  return !header.includes('ID') && header.includes('Image') && header.includes('Label_idx');
}

/** A parsed file with all `needed` columns and at least one row below the header. */
export class CsvTable {
  /** In cellcam's names. */
  readonly header: string[];
  readonly rows: string[][];
  private readonly text: string;
  private readonly hasAddresses: boolean;

  constructor(
    readonly path: string,
    needed: string[],
  ) {
    // One kind of line end, as csv-parse counts a CRLF within quotes as two lines.
    this.text = readText(path).replace(/\r\n?/g, '\n');
    const [header, ...rows] = this.parse();
    this.rows = rows;
    const names = (header ?? []).map((name) => name.trim());
    this.hasAddresses = isPublicTable(names);
    this.header = this.hasAddresses ? names.map((name) => PUBLIC_NAMES[name] ?? name) : names;
    this.checkHeader(needed);
    if (rows.length === 0) throw this.error(-1, 'Expected at least one row below the header');
  }

  /** An error about a row (-1: the header). Lines are counted only here, as counting them doubles the time of reading. */
  error(row: number, problem: string): CellcamError {
    const read = parse(this.text, { ...CSV, to: row + 2, info: true }) as unknown as { info: { lines: number } }[];
    return new CellcamError('ERR_TABLE', `${this.path}:${read.at(-1)?.info.lines ?? 1}: ${problem}`);
  }

  /** The ID of each row; of an image's address its last part. @throws CellcamError ERR_TABLE for an empty one */
  ids(): string[] {
    const column = this.header.indexOf('ID');
    return this.rows.map((fields, row) => {
      const text = fields[column]!.trim();
      const id = this.hasAddresses ? text.slice(text.lastIndexOf('/') + 1) : text;
      if (id === '') throw this.error(row, 'Expected a non-empty ID');
      return id;
    });
  }

  private parse(): string[][] {
    try {
      return parse(this.text, CSV);
    } catch (error) {
      const { lines } = error as { lines?: number };
      throw new CellcamError('ERR_TABLE', `${this.path}:${lines ?? 1}: ${messageOf(error)}`, { cause: error });
    }
  }

  private checkHeader(needed: string[]): void {
    const { header } = this;
    const missing = needed.filter((name) => !header.includes(name));
    if (missing.length > 0) {
      const found = header.length === 0 ? 'the file is empty' : `the header is ${header.slice(0, 5).join(',')}`;
      throw this.error(-1, `Expected the columns ${needed.join(', ')}; ${missing.join(', ')} is missing: ${found}`);
    }
    const twice = header.find((name, i) => name !== '' && header.indexOf(name) !== i);
    if (twice !== undefined) throw this.error(-1, `Expected every column once but '${twice}' is there twice`);
  }
}
