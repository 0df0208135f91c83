"""Plain facts, written by hand, and the questions that they answer."""
import words as W

# name | what it is | where it lives | what it eats | what it looks like | the sound or thing it does | something more
ANIMALS = """
fox|a wild animal that looks like a small dog|in forests and fields|mice, birds, eggs and berries|red or brown fur and a bushy tail|bark|Foxes are very clever and often hunt at night.
cat|a small animal that many people keep as a pet|in houses with people|meat, fish and cat food|soft fur, whiskers and sharp claws|meow|Cats sleep for many hours every day.
dog|an animal that is often called the best friend of people|in houses with people|meat and dog food|fur, a tail and a very good nose|bark|Dogs can learn many tricks.
mouse|a very small animal with a long tail|in fields, barns and houses|seeds, grain and cheese|small ears, a long tail and soft fur|squeak|Mice have to be careful, because cats like to catch them.
bear|a big and strong wild animal|in forests and mountains|fish, berries, roots and honey|thick fur, big paws and a short tail|growl|Many bears sleep through the winter.
rabbit|a small animal with long ears|in fields and holes in the ground|grass, leaves and carrots|long ears, soft fur and a short tail|hop|Rabbits can hop very fast.
bird|an animal with wings and feathers|in trees and bushes|seeds, worms and insects|wings, feathers and a beak|sing|Most birds can fly and lay eggs in a nest.
duck|a bird that can swim|near ponds and lakes|grass, seeds and small water animals|feathers, a flat beak and feet for swimming|quack|Baby ducks are called ducklings.
frog|a small animal that can jump very far|near ponds and rivers|flies and other insects|smooth green skin and long back legs|croak|A frog begins its life as a tadpole in the water.
owl|a bird that is awake at night|in trees and old barns|mice and other small animals|big round eyes and soft feathers|hoot|Owls can turn their heads very far and fly without a sound.
lion|a big wild cat|in the grasslands of Africa|meat|golden fur, and the male has a big mane|roar|Lions live in groups that are called prides.
tiger|the biggest of all wild cats|in the forests of Asia|meat|orange fur with black stripes|roar|Tigers like water and can swim well.
elephant|the biggest animal on land|in Africa and Asia|grass, leaves and fruit|gray skin, big ears and a long trunk|trumpet|An elephant uses its trunk to drink and to pick things up.
monkey|a clever animal that likes to climb|in trees in warm countries|fruit, leaves and nuts|long arms, hands and a long tail|chatter|Monkeys live together in families.
horse|a big and strong animal that people can ride|on farms and in fields|grass, hay and oats|long legs, a mane and a long tail|neigh|A baby horse is called a foal.
cow|a big farm animal|on farms|grass and hay|a big body, and often black, white or brown spots|moo|Cows give us milk.
pig|a clever farm animal|on farms|almost everything, such as corn and potatoes|a round body, a flat nose and a curly tail|oink|Pigs roll in the mud to stay cool.
sheep|a farm animal with thick wool|on farms and hills|grass|a thick coat of white wool|baa|We make warm clothes from the wool of sheep.
goat|a farm animal that likes to climb|on farms and mountains|grass, leaves and bushes|horns and a small beard|bleat|Goats can climb on steep rocks.
hen|a bird that lives on a farm|on farms|grain, seeds and worms|feathers, small wings and a red comb|cluck|Hens lay eggs. A baby hen is called a chick.
rooster|a male chicken|on farms|grain and worms|bright feathers and a red comb|crow|A rooster wakes everyone up in the morning.
squirrel|a small animal that climbs trees|in trees in forests and parks|nuts, seeds and acorns|red or gray fur and a big bushy tail|jump from tree to tree|Squirrels hide nuts for the winter.
hedgehog|a small animal with spines|in gardens and forests|worms, snails and insects|many sharp spines on its back|roll up into a ball|When it is afraid, a hedgehog rolls up into a ball.
deer|a shy forest animal|in forests|grass, leaves and berries|long legs and brown fur, and the male has antlers|run very fast|A baby deer is called a fawn.
wolf|a wild animal that looks like a big dog|in forests|meat|gray fur and sharp teeth|howl|Wolves live in families that are called packs.
turtle|an animal with a hard shell|in water and on land|plants, and sometimes small animals|a hard shell and short legs|walk slowly|Turtles can become very old.
snail|a small and slow animal with a house on its back|in gardens|leaves and plants|a soft body and a round shell|crawl slowly|A snail hides in its shell when it is dry.
bee|a small insect that makes honey|in hives|the sweet juice of flowers|black and yellow stripes and small wings|buzz|Bees fly from flower to flower and help plants grow.
ant|a very small insect|in nests in the ground|seeds, sugar and other insects|six legs and a tiny body|work together|An ant can carry things that are much heavier than itself.
butterfly|an insect with beautiful wings|in gardens and meadows|the sweet juice of flowers|four colorful wings|flutter|A butterfly begins its life as a caterpillar.
caterpillar|a young butterfly that has no wings yet|on plants|leaves|a long soft body with many legs|crawl|Later a caterpillar becomes a butterfly.
spider|a small animal with eight legs|in gardens, houses and forests|flies and other insects|eight thin legs|make a web|Spiders catch insects in their webs.
ladybug|a small round insect|in gardens|tiny green insects|red wings with black spots|fly and crawl|People say that a ladybug brings good luck.
fish|an animal that lives in the water|in rivers, lakes and seas|plants and small water animals|fins, a tail and shiny scales|swim|Fish breathe with gills.
whale|the biggest animal in the sea|in the sea|tiny sea animals and fish|a huge body and a big tail|sing under water|Whales are not fish. They come up to breathe air.
dolphin|a clever sea animal|in the sea|fish|smooth gray skin and a long nose|jump out of the water|Dolphins like to play and are very friendly.
shark|a big fish with sharp teeth|in the sea|fish and other sea animals|a strong tail and many sharp teeth|swim fast|Sharks can smell very well.
crab|a sea animal that walks sideways|on beaches and in the sea|plants and small animals|a hard shell and two big claws|walk sideways|Crabs can pinch with their claws.
octopus|a sea animal with eight arms|in the sea|crabs and fish|a soft body and eight long arms|change its color|An octopus can hide very well.
seal|a sea animal that likes to lie on the beach|in cold seas and on beaches|fish|smooth fur and flippers|bark|Seals swim very well, but on land they are slow.
penguin|a bird that cannot fly|in cold places near the sea|fish|black and white feathers|waddle and swim|Penguins stand close together to stay warm.
swan|a big white bird|on lakes and rivers|water plants|white feathers and a long neck|hiss|A young swan is gray.
goose|a bird that is bigger than a duck|on farms and near lakes|grass and grain|a long neck and gray or white feathers|honk|Many geese fly south for the winter.
parrot|a bird with bright colors|in warm forests|fruit, seeds and nuts|bright feathers and a strong beak|talk|Some parrots can learn to say words.
crow|a clever black bird|in fields and towns|seeds, insects and fruit|black feathers and a strong beak|caw|Crows can solve hard puzzles.
eagle|a big bird that hunts|in the mountains|fish and small animals|strong wings, sharp claws and very good eyes|fly very high|Eagles build big nests in high places.
snake|an animal without legs|in deserts, forests and fields|mice, frogs and eggs|a long thin body with scales|hiss|Snakes smell with their tongue.
lizard|a small animal with a long tail|in warm and dry places|insects|scales, four legs and a long tail|run fast|Lizards like to lie in the sun.
camel|a big animal that lives in the desert|in the desert|dry grass and plants|long legs and one or two humps|walk a long way without water|People ride on camels in the desert.
giraffe|the tallest animal in the world|in Africa|leaves from tall trees|a very long neck and brown spots|reach high leaves|A giraffe has a long blue tongue.
zebra|an animal that looks like a horse with stripes|in Africa|grass|black and white stripes|run fast|No two zebras have the same stripes.
hippo|a very heavy animal that likes water|in rivers in Africa|grass|a huge body and a very big mouth|open its mouth very wide|Hippos stay in the water all day to keep cool.
kangaroo|an animal that jumps on its back legs|in Australia|grass and leaves|strong back legs and a long tail|jump very far|A mother kangaroo carries her baby in a pouch.
koala|a gray animal that lives in trees|in Australia|leaves|gray fur, round ears and a big nose|sleep in trees|Koalas sleep almost all day.
panda|a black and white bear|in China|bamboo|black and white fur|eat all day|Pandas eat bamboo for many hours every day.
donkey|an animal like a small horse|on farms|grass and hay|gray fur and very long ears|bray|Donkeys can carry heavy loads.
beaver|an animal that builds dams|in rivers|bark, leaves and plants|brown fur, big teeth and a flat tail|build dams|Beavers cut down trees with their teeth.
mole|a small animal that lives under the ground|under the ground|worms and insects|black fur and strong front feet|dig|Moles cannot see well, but they can dig very fast.
bat|an animal that can fly at night|in caves and old houses|insects and fruit|wings of thin skin|hang upside down|Bats sleep with their heads down.
worm|a small animal without legs|in the ground|dead leaves and soil|a long, thin and soft body|dig in the soil|Worms are good for the garden.
starfish|a sea animal that looks like a star|in the sea|shells and small animals|five arms|walk slowly on the sand|A starfish can grow a new arm.
""".strip().splitlines()

# job | does what | where | with what
JOBS = """
baker|makes bread and cakes|in a bakery|an oven
farmer|grows food and takes care of animals|on a farm|a tractor
teacher|helps children to learn|in a school|books
doctor|helps people who are ill|in a hospital|medicine
nurse|takes care of people who are ill|in a hospital|bandages
firefighter|puts out fires and saves people|at a fire station|a long hose
painter|paints pictures or walls|in a studio|a brush and paint
singer|sings songs for people|on a stage|a good voice
dancer|dances for people|on a stage|music
gardener|takes care of plants and flowers|in a garden|a shovel and water
fisherman|catches fish|on a boat|a net
sailor|works on a ship|at sea|ropes and sails
cook|makes food for people|in a kitchen|pots and pans
builder|builds houses|at a building site|bricks and tools
driver|drives a bus, a truck or a car|on the road|a bus
mailman|brings letters and packages|from house to house|a big bag
shopkeeper|sells things to people|in a shop|a counter
librarian|takes care of books and helps people find them|in a library|many books
tailor|makes and mends clothes|in a small shop|a needle and thread
scientist|finds out how things work|in a laboratory|careful tests
astronaut|flies into space|in a spaceship|a space suit
shepherd|takes care of sheep|on the hills|a dog
miller|makes flour from grain|in a mill|big round stones
clown|makes people laugh|in a circus|a red nose
king|rules a country|in a castle|a crown
pilot|flies a plane|in the sky|a plane
dentist|takes care of teeth|in an office|a small mirror
police officer|helps people and keeps them safe|in a town|a car and a radio
artist|makes pictures and other beautiful things|in a studio|paint and paper
explorer|goes to places that nobody knows|all over the world|a map
""".strip().splitlines()

# thing | what it is | what it is for | what it is made of
THINGS = """
ball|a round toy|to throw, kick and catch it|rubber or leather
kite|a toy that flies in the wind|to fly it on a windy day|paper or cloth
drum|a musical instrument|to make music by hitting it|wood and skin
book|many pages with words or pictures|to read stories and to learn|paper
pencil|a thin stick that writes|to write and to draw|wood
brush|a tool with many hairs|to paint or to clean|wood and hair
basket|a thing with a handle that holds other things|to carry fruit or bread|thin branches
bottle|a thing that holds water or milk|to keep something to drink|glass or plastic
cup|a small thing to drink from|to drink tea or milk|clay
plate|a flat dish|to put food on it|clay
spoon|a small tool for eating|to eat soup|metal or wood
pot|a deep dish with a lid|to cook soup|metal
lamp|a thing that gives light|to see in the dark|metal and glass
candle|a stick of wax that burns|to make light|wax
clock|a thing that shows the time|to know what time it is|metal and glass
key|a small metal thing|to open and close a lock|metal
door|a part of a house that opens and closes|to go in and out|wood
window|a part of the wall that you can look through|to let in light and air|glass
table|a piece of furniture with legs|to eat, work or play at it|wood
chair|a piece of furniture for one person|to sit on it|wood
bed|a piece of furniture for the night|to sleep in it|wood
blanket|a big warm cloth|to stay warm in bed|wool
pillow|a soft bag for your head|to rest your head|cloth and feathers
mirror|a glass that shows your face|to see how you look|glass
ladder|a thing with many steps|to climb up to high places|wood or metal
rope|a thick and strong string|to tie or pull things|strong threads
wheel|a round thing that turns|to make cars and wagons roll|rubber or wood
bicycle|a thing with two wheels|to ride from one place to another|metal and rubber
car|a machine with four wheels|to drive on the road|metal and glass
train|a long machine that runs on rails|to carry many people far away|metal
boat|a thing that floats on water|to cross a river or a lake|wood
plane|a machine with wings|to fly through the air|metal
balloon|a thin bag full of air|to play with it or to make a party look nice|rubber
umbrella|a roof that you can carry|to stay dry in the rain|cloth and metal
hat|a thing that you wear on your head|to keep your head warm or dry|wool or cloth
coat|a thick piece of clothing|to stay warm outside|wool
scarf|a long piece of cloth|to keep your neck warm|wool
shoe|a thing that you wear on your foot|to keep your feet safe and warm|leather
glove|a thing that you wear on your hand|to keep your hands warm|wool
button|a small round thing on clothes|to close a coat or a shirt|plastic
needle|a thin and sharp piece of metal|to sew clothes|metal
letter|a message on paper|to tell something to a person who is far away|paper
map|a picture of a place from above|to find the way|paper
broom|a brush with a long stick|to clean the floor|wood and straw
bucket|a deep thing with a handle|to carry water or sand|metal or plastic
hammer|a heavy tool|to hit nails|metal and wood
shovel|a tool for digging|to dig holes|metal and wood
bell|a metal thing that rings|to make a loud, clear sound|metal
guitar|a musical instrument with strings|to play songs|wood
flute|a musical instrument that you blow into|to play songs|wood or metal
camera|a machine that takes pictures|to take photos|metal and glass
soap|a thing that makes you clean|to wash your hands|fat and oil
house|a building with rooms|to live in it|wood or bricks
bridge|a road over water|to cross a river|stone, wood or metal
school|a building for children and teachers|to learn things|bricks
tent|a small house of cloth|to sleep outside|cloth
swing|a seat that hangs on two ropes|to swing up and down|wood and rope
""".strip().splitlines()

# food (singular for "a …") | what it is | color | taste | how people eat it
FOODS = """
apple|a round fruit|red, green or yellow|sweet and a little sour|You can eat it fresh or bake it in a pie.
banana|a long fruit|yellow|sweet and soft|You take off the skin before you eat it.
carrot|a vegetable that grows under the ground|orange|sweet and crisp|You can eat it raw or cook it in soup.
potato|a vegetable that grows under the ground|brown outside and yellow inside|mild|You can boil it, bake it or fry it.
lemon|a fruit|yellow|very sour|People use the juice for drinks and cakes.
orange|a round fruit|orange|sweet and juicy|You can eat it fresh or drink its juice.
strawberry|a small fruit|red|sweet|It tastes very good with cream.
cherry|a small round fruit|red|sweet|It has a stone inside.
tomato|a round fruit that we use like a vegetable|red|fresh and a little sweet|You can eat it in a salad or make a sauce.
pumpkin|a very big vegetable|orange|mild and sweet|You can make soup or a pie from it.
pear|a fruit|green or yellow|sweet and juicy|You can eat it fresh.
grape|a small round fruit|green or purple|sweet|People also make juice from it.
egg|a food that comes from hens|white or brown outside|mild|You can boil it or fry it.
cookie|a small flat cake|brown|sweet|It is very good with a glass of milk.
pancake|a flat cake from a pan|golden|sweet|You can eat it with honey or jam.
sandwich|two pieces of bread with something between them|brown outside|good|You can put cheese, eggs or tomatoes in it.
""".strip().splitlines()

PLACES = """
forest|a place with many trees|walk, look for animals and pick berries
river|a long stream of water|swim, fish or sail a little boat
lake|a big place with water and land all around it|swim and go by boat
sea|a very big place with salt water|swim, sail and look for shells
beach|a place with sand next to the sea|build sand castles and swim
mountain|a very high piece of land|climb up and look far over the land
farm|a place where food grows and animals live|see cows, pigs and hens
garden|a place with flowers and vegetables|plant flowers and play
park|a green place in a town|play, run and meet friends
school|a place where children learn|read, write and play with other children
castle|a big old house with strong walls and towers|look at old rooms and climb up the tower
cave|a big hole in a rock or a hill|explore it with a lamp
island|a piece of land with water all around it|walk along the beach
desert|a very dry place with a lot of sand|ride on a camel
jungle|a warm and wet forest with many plants|see monkeys and parrots
library|a place with many books|read and borrow books
museum|a place with old and interesting things|look at pictures and learn new things
zoo|a place where you can see animals from all over the world|look at lions, monkeys and elephants
market|a place where people sell food and other things|buy fresh fruit and bread
bakery|a shop that sells bread and cakes|buy warm bread
shop|a place where you can buy things|buy food, toys or clothes
hospital|a place for people who are ill|get help from doctors and nurses
playground|a place where children play|slide, swing and climb
kitchen|a room where people cook|cook, bake and eat
bedroom|a room where people sleep|sleep, rest and read
harbor|a place for ships|look at ships and boats
village|a small group of houses|meet people that you know
city|a place with many houses and many people|go to shops, parks and museums
train station|a place where trains stop|get on a train
circus|a big tent with a show|see clowns and dancers
""".strip().splitlines()
