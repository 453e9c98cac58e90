/** Whether a way of working that is only there for speed is wanted: yes, unless the environment sets its name to 0 (docs/performance.md). */
export function switchedOn(name: string): boolean {
  return process.env[name]?.startsWith('0') !== true;
}
