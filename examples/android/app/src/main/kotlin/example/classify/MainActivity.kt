package example.classify

import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.net.Uri
import android.os.Bundle
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier

private const val MODEL = "model.tflite" // in the assets
private const val SHOWN = 3

/** Classifies an image that the user picks. All that MediaPipe needs to know of the model is in the file. */
class MainActivity : ComponentActivity() {
    private val classifier = lazy {
        val base = BaseOptions.builder().setModelAssetPath(MODEL).build()
        val options = ImageClassifier.ImageClassifierOptions.builder()
            .setBaseOptions(base)
            .setMaxResults(SHOWN)
            .build()
        ImageClassifier.createFromOptions(this, options)
    }
    private lateinit var image: ImageView
    private lateinit var answers: TextView
    private val pick = registerForActivityResult(ActivityResultContracts.GetContent()) { uri -> uri?.let(::classify) }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        image = ImageView(this).apply { adjustViewBounds = true }
        answers = TextView(this)
        val button = Button(this).apply {
            text = "Pick an image"
            setOnClickListener { pick.launch("image/*") }
        }
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                fitsSystemWindows = true
                addView(button)
                addView(answers)
                addView(image)
            },
        )
    }

    private fun classify(uri: Uri) {
        val bitmap = ImageDecoder.decodeBitmap(ImageDecoder.createSource(contentResolver, uri)) { decoder, _, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // MediaPipe reads the pixels
        }.copy(Bitmap.Config.ARGB_8888, false)
        image.setImageBitmap(bitmap)
        val result = classifier.value.classify(BitmapImageBuilder(bitmap).build())
        answers.text = result.classificationResult().classifications().first().categories()
            .joinToString("\n") { "${it.categoryName()}: ${"%.3f".format(it.score())}" }
    }

    override fun onDestroy() {
        super.onDestroy()
        if (classifier.isInitialized()) classifier.value.close()
    }
}
