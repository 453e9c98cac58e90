import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';

const MAIN = join(__dirname, '..', '..', 'dist', 'cli', 'main.js');

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Files may not grow beyond so many bytes: writing more fails as on a full disk. */
  largestFile?: number;
  onStart?: (child: ChildProcess) => void;
  /** Called for every line of its output; may kill it. */
  onLine?: (line: string, child: ChildProcess) => void;
}

/** Runs a Node program to its end. */
export function runNode(args: string[], o: RunOptions = {}): Promise<Ended> {
  const node = [process.execPath, ...args];
  const limited = ['bash', '-c', `ulimit -f ${Math.ceil((o.largestFile ?? 0) / 1024)} && exec "$0" "$@"`, ...node];
  const [program, ...rest] = o.largestFile === undefined ? node : limited;
  const child = spawn(program!, rest, { cwd: o.cwd, env: { ...process.env, ...o.env } });
  o.onStart?.(child);
  let [stdout, stderr, pending] = ['', '', ''];
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
    const lines = (pending + chunk.toString()).split('\n');
    pending = lines.pop()!;
    for (const line of lines) o.onLine?.(line, child);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

/** Runs the command line as a user would. */
export function cellcam(args: string[], o: RunOptions = {}): Promise<Ended> {
  return runNode([MAIN, ...args], o);
}
