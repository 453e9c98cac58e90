#!/usr/bin/env node
// What a report's page is made of is no TypeScript: it goes to dist as it is.
import { cpSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const page = path.join('report', 'page');
rmSync(path.join(root, 'dist', page), { recursive: true, force: true });
cpSync(path.join(root, 'lib', page), path.join(root, 'dist', page), { recursive: true });
