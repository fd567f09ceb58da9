// Swagger UI with the OpenAPI document.

const dark = matchMedia("(prefers-color-scheme: dark)");

function applyScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

dark.addEventListener("change", applyScheme);
applyScheme();

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  validatorUrl: null, // the default sends the document's address to swagger.io
});
