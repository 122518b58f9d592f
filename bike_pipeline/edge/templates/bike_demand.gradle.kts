// What the app's own build.gradle.kts needs for the model.
android {
    // The model is mapped into memory, which a compressed asset cannot be.
    androidResources { noCompress += "tflite" }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:1.4.2")
}
