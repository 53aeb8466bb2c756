// The password goes to the worker, which answers with a cookie that no script can read.

const form = document.getElementById("login");
const password = document.getElementById("password");
const said = document.getElementById("said");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "";
  try {
    const response = await fetch("login", {
      method: "POST",
      // A form on another site cannot send this header: that is what it is for.
      headers: { "Content-Type": "application/json", "X-Microcurrent": "page" },
      body: JSON.stringify({ password: password.value }),
    });
    if (response.ok) {
      location.replace("./" + location.hash);
      return;
    }
    said.textContent = (await response.json()).error;
  } catch {
    said.textContent = "The worker does not answer.";
  }
  password.select();
});
