// Fetches BASE/job/1 to BASE/job/COUNT, 50 at a time, as a program would that
// knows nothing of rate limits. Writes each body to a file named by its number
// and prints a line per answer: status and number.

import { writeFile } from "node:fs/promises";

const PARALLEL = 50;

const [base, count] = process.argv.slice(2);
let next = 1;

async function fetchInTurn() {
  while (next <= Number(count)) {
    const number = next++;
    const answer = await fetch(`${base}/job/${number}`);
    await writeFile(String(number), await answer.text());
    console.log(`${answer.status} ${number}`);
  }
}

await Promise.all(Array.from({ length: PARALLEL }, fetchInTurn));
